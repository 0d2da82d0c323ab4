"""What a traced gradient keeps of its forward pass, read off its graph."""

from __future__ import annotations

import tensorflow as tf

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Their outputs are their inputs' memory.
_ALIASES = ("Identity", "IdentityN", "Reshape")
_NOT_KEPT = ("ReadVariableOp", "Placeholder", "Const")


def kept_values(graph: tf.Graph) -> int:
    """Numbers that operations of the forward pass hand to those of the gradient, each tensor once."""
    functions = {function.signature.name: function for function in graph.as_graph_def().library.function}
    sizes = {}
    for operation in graph.get_operations():
        for tensor in operation.inputs if _of_gradient(operation) else ():
            source = _source(functions, tensor)
            # The kernel of batch normalisation hands on a tensor of unknown size that is empty on a processor.
            if source is not None and tensor.shape.num_elements():
                sizes[source] = tensor.shape.num_elements()
    return sum(sizes.values())


def _of_gradient(operation) -> bool:
    called = operation.get_attr("f").name if operation.type in _CALLS else ""
    return operation.name.startswith("gradient_tape") or "__backward_" in called or "Grad" in operation.type


def _source(functions, tensor):
    """Where a tensor is computed in the forward pass; None where it is not."""
    operation = tensor.op
    if _of_gradient(operation) or operation.type in _NOT_KEPT or tensor.dtype != tf.float32:
        return None
    if operation.type in _ALIASES:
        return _source(functions, operation.inputs[tensor.value_index])
    if operation.type not in _CALLS:
        return tensor.name
    found = _output(functions, operation.get_attr("f").name, tensor.value_index)
    # A function may hand an input on.
    return _source(functions, operation.inputs[found]) if isinstance(found, int) else (operation.name, found)


def _output(functions, name: str, index: int):
    """Of an output of a function: the number of the input that it is, or the names on the way to where it is computed.

    A function may hand out the same tensor several times.
    """
    function = functions[name]
    return _resolve(functions, function, function.ret[function.signature.output_arg[index].name])


def _resolve(functions, function, name: str):
    inputs = [argument.name for argument in function.signature.input_arg]
    if name in inputs:
        return inputs.index(name)
    node = next(node for node in function.node_def if node.name == name.partition(":")[0])
    number = int(name.rpartition(":")[2])
    if node.op in _ALIASES:
        return _resolve(functions, function, node.input[number])
    if node.op not in _CALLS:
        return name
    found = _output(functions, node.attr["f"].func.name, number)
    return _resolve(functions, function, node.input[found]) if isinstance(found, int) else (node.name, found)
