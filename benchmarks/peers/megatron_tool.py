"""Run a script of a Megatron-LM checkout: megatron_tool.py CHECKOUT SCRIPT ARGUMENTS..."""

import runpy
import sys
import typing

checkout, script, *arguments = sys.argv[1:]
if not hasattr(typing, "override"):  # Python 3.11; the checkout asks for 3.12
    import typing_extensions

    typing.override = typing_extensions.override
sys.path.insert(0, checkout)
sys.argv = [script, *arguments]
runpy.run_path(f"{checkout}/tools/{script}", run_name="__main__")
