"""PTX, as NVRTC writes it, to kernels and instructions."""

import dataclasses
import re


@dataclasses.dataclass
class Instruction:
    predicate: tuple | None  # a register, and whether it is negated
    operation: str
    arguments: list
    text: str


@dataclasses.dataclass
class Kernel:
    name: str
    parameters: list  # names
    shared: dict  # where the arrays of shared memory start
    declared: int  # bytes of shared memory, without those of the launch
    code: list
    labels: dict


ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)(.*?)\n\{\n(.*?)\n\}\n", re.S)
VARIABLE = re.compile(r"\.shared \.align (\d+) \.[a-z](\d+) (\w+)(?:\[(\d+)\])?;")
GIVEN = re.compile(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[\]")
GUARDED = re.compile(r"(?:@(!?)(%p\d+)\s+)?([\w.:]+)\s*(.*)$", re.S)


def split(text):
    """Arguments between commas that stand in no braces."""
    found, depth, own = [], 0, ""
    for character in text:
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            found.append(own.strip())
            own = ""
        else:
            own += character
    return found + [own.strip()] if own.strip() else found


def instruction(text):
    negated, register, operation, arguments = GUARDED.match(text).groups()
    return Instruction((register, bool(negated)) if register else None, operation, split(arguments), text)


def kernels(ptx):
    """The kernels of a program, by name."""
    module, found = ptx[:ptx.index(".visible .entry")], {}
    for name, parameters, _, body in ENTRY.findall(ptx + "\n"):
        shared, size = {}, 0
        own = VARIABLE.findall(body) + [variable for variable in VARIABLE.findall(module) if variable[2] in body]
        for align, bits, variable, count in own:
            size = -(-size // int(align)) * int(align)
            shared[variable] = size
            size += int(bits) // 8 * int(count or 1)
        for array in GIVEN.findall(ptx):
            shared[array] = -(-size // 16) * 16
        kernel = Kernel(name, re.findall(r"(\w+_param_\d+)", parameters), shared, size, [], {})
        body = re.sub(r"//.*", "", body)
        body = re.sub(r"\{\s*\.reg[^;]*;", " ", body)  # a scratch register's scope
        body = re.sub(r"^\s*\.[^;\n]*;?", "", body, flags=re.M)
        body = re.sub(r"^\s*(\$?\w+):", r"LABEL \1;", body, flags=re.M)
        for part in body.split(";"):
            # The braces of scopes and of inline assembly.
            part = re.sub(r"^[{}\s]+(?=[@a-zA-Z])|^[{}\s]+$", "", part.strip()).strip()
            if part.startswith("LABEL "):
                kernel.labels[part.split()[1]] = len(kernel.code)
            elif part:
                kernel.code.append(instruction(part))
        found[name] = kernel
    return found
