# SPDX-License-Identifier: Apache-2.0
"""Exports every layer of Keras next to a DDF2D in every format, and writes the table of `docs/guide/export_layers.md`.

python -m tests.support.keras_layers_table
"""

import argparse
import importlib.metadata
import pathlib
import re
import tempfile
from collections.abc import Sequence

import keras

from keras_dynfilter import export
from tests.support import keras_layers
from tests.support.paths import ROOT

PAGE = ROOT / "docs/guide/export_layers.md"
COLUMNS = {  # title: format and ops
    "SavedModel": ("saved_model", "portable"),
    "ONNX": ("onnx", "portable"),
    "ONNX, native ops": ("onnx", "native"),
    "LiteRT": ("litert", "portable"),
}
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"
Outcomes = dict[str, str]  # by name of a layer: "yes", or the sentence that refuses it


def problem(names: Sequence[str], column: str) -> export.ExportError | None:
    """Exports a model with these layers. Returns the error, or None if the file was written and passed."""
    format, ops = COLUMNS[column]
    model = keras_layers.model(names)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"model{export.FORMATS[format].suffix}"
        try:
            export.export(model, path, format, ops, export.Validation(batch_sizes=(2, 1)), verbose=False)
        except export.ExportError as error:
            return error
    return None


def outcomes(names: Sequence[str], column: str) -> Outcomes:
    """Exports all layers in one model. If this fails, exports each half of them, and so on."""
    error = problem(names, column)
    if error is None:
        return dict.fromkeys(names, "yes")
    if len(names) == 1:
        return {names[0]: sentence(error)}
    middle = len(names) // 2
    return {**outcomes(names[:middle], column), **outcomes(names[middle:], column)}


def sentence(error: export.ExportError) -> str:
    """Returns the reason why an export failed, in one line."""
    if isinstance(error, export.ValidationError):
        validation = error.report.validation
        failed = [f"{check.name}: {check.problem}" for check in validation.outputs if not check.passed]
        return "; ".join([*validation.problems, *(() if validation.problems else failed)])
    return " ".join(str(error).removesuffix(f". {export.report.WAY_OUT}").split())


def table(results: dict[str, Outcomes]) -> str:
    """Returns the outcomes as Markdown: a table of all layers, and a table of the reasons."""
    kinds = keras_layers.kinds()
    lines = [f"| layer | called on | {' | '.join(results)} |", f"| --- | --- |{' --- |' * len(results)}"]
    for name in sorted(kinds, key=str.lower):
        cells = ["yes" if outcome[name] == "yes" else "**no**" for outcome in results.values()]
        lines.append(f"| `{name}` | {kinds[name]} | {' | '.join(cells)} |")
    lines += ["", "| layer | format | why |", "| --- | --- | --- |"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for column, outcome in results.items():
        for name, text in outcome.items():
            if text != "yes":
                reasons.setdefault((name, text), []).append(column)
    for (name, text), columns in sorted(reasons.items(), key=lambda item: item[0][0].lower()):
        lines.append(f"| `{name}` | {'; '.join(columns)} | {text.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def documented() -> dict[str, dict[str, bool]]:
    """Returns whether a layer can be exported, by column and by name of the layer, as the page says."""
    rows = re.findall(r"^\| `(\w+)` \| [\w ]+ \| ((?:(?:yes|\*\*no\*\*) \|[ \n])+)", PAGE.read_text(), re.MULTILINE)
    cells = {name: [cell.strip() == "yes" for cell in row.strip().strip("|").split("|")] for name, row in rows}
    return {column: {name: values[index] for name, values in cells.items()} for index, column in enumerate(COLUMNS)}


def versions() -> str:
    names = {"tensorflow": "TensorFlow", "tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime", "ai-edge-litert": "LiteRT"}
    others = ", ".join(f"{title} {importlib.metadata.version(name)}" for name, title in names.items())
    return f"Keras {keras.__version__}, {others}."


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    names = list(keras_layers.kinds())
    results = {}
    for column in COLUMNS:
        results[column] = outcomes(names, column)
        print(f"{column}: {sum(text == 'yes' for text in results[column].values())} of {len(names)}", flush=True)
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{versions()}\n\n{table(results)}\n{END}{after}")


if __name__ == "__main__":
    main()
