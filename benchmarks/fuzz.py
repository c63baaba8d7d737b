"""Fuzz the readers of files, guided by coverage: which content makes one of them raise anything but a PodiumError?

    python benchmarks/fuzz.py predictions|csv|toml|archive|image FOLDER -max_total_time=1200

needs atheris (`pip install atheris`), which is not in requirements.lock. The readers and the first inputs are those of
tests/reader_toys.py. FOLDER/corpus keeps the inputs that reach new code, FOLDER/crashes/<reader>/ the first input of
each fault: fix the fault, and copy the input to tests/crashes/<reader>/, which tests/test_readers.py reads. Other
options are libFuzzer's.
"""

import hashlib
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
# Kind of reader -> the packages whose coverage guides it; to instrument all takes minutes.
PARSERS = {
    "predictions": ["podium.predictions", "podium.plan", "zipfile", "numpy.lib._format_impl", "tokenize"],
    "csv": ["podium.data", "podium.predictions", "podium.targets", "podium.kaggle", "podium.lock", "podium.submission"],
    "toml": ["podium.config", "podium.scaffold", "tomllib"],
    "archive": ["podium.data.archives", "zipfile", "tarfile", "py7zr"],
    "image": ["podium.data.images", "PIL"],
}
with atheris.instrument_imports(include=PARSERS.get(sys.argv[1], [])):
    import reader_toys
    from podium.data import archives
    from podium.errors import PodiumError

MOST_UNPACKED = 1 << 20  # an archive that unpacks to more is a bomb, so that one input takes milliseconds


class Target:
    """The readers of one kind; the first byte of an input chooses one."""

    def __init__(self, kind: str, folder: Path):
        self.names = [name for name in reader_toys.READERS if name.startswith(kind)]
        self.crashes, self.known = folder / "crashes", set()
        self.scratch = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        archives.HARMLESS_BYTES = MOST_UNPACKED

    def write_first_inputs(self, corpus: Path) -> None:
        """Write the valid content of each reader into the corpus."""
        corpus.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(self.names):
            for content in reader_toys.IMAGES if name == "image" else (reader_toys.VALID[name],):
                (corpus / hashlib.sha256(content).hexdigest()[:16]).write_bytes(bytes([number]) + content)

    def __call__(self, content: bytes) -> None:
        """Read one input; of the faults that end at one place in the code, the first is written and printed."""
        if not content:
            return
        name, content = self.names[content[0] % len(self.names)], content[1:]
        folder = self.scratch / name
        folder.mkdir(exist_ok=True)
        try:
            reader_toys.READERS[name](folder, content)
        except PodiumError as error:
            str(error)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            fault = (name, type(error).__name__, place.filename, place.lineno)
            if fault not in self.known:
                self.known.add(fault)
                file = self.crashes / name.replace(" ", "_") / hashlib.sha256(content).hexdigest()[:12]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                print(f"FAULT {file}\n{traceback.format_exc()}", file=sys.stderr, flush=True)


def main(kind: str, folder: Path, options: list[str]) -> None:
    """Fuzz the readers of one kind until libFuzzer ends the process."""
    warnings.simplefilter("ignore")
    target, corpus = Target(kind, folder), folder / "corpus"
    target.write_first_inputs(corpus)
    atheris.Setup([sys.argv[0], str(corpus), "-max_len=8192", "-timeout=300", "-print_final_stats=1", *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
