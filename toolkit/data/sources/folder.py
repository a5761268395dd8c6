"""A folder of pictures or sounds: a subfolder per class, with or without folders for the splits above them."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from toolkit.data.contents import unusable, walk
from toolkit.data.examples import BadExample, Examples, Source, shown
from toolkit.data.sources.shared import at_least_two, existing, share_out, shares_to_cut
from toolkit.data.spec import SPLITS
from toolkit.data.splits import check_shares, in_order, refuse
from toolkit.errors import ToolkitError, did_you_mean
from toolkit.types import Seed, Share

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
SOUNDS = frozenset({".wav", ".flac", ".ogg"})
# What people also call the folders of splits: as names of classes they would be a trap.
_LIKE_SPLITS = frozenset({"training", "val", "valid", "dev", "eval", "testing", *SPLITS})


def folder(*, path: str, validation: Share | None = None, test: Share | None = None, split_seed: Seed = 0) -> Source:
    """Pictures (JPEG, PNG, BMP, GIF, WebP) or sounds (WAV, FLAC, OGG) in `class_name/`, by their suffixes.

    Files lie in `path/class/…`, or in `path/train/class/…`, `path/validation/class/…` and `path/test/class/…`; of the
    last three, `validation` and `test` may be missing and are then cut from `train`. Hidden files are left out.
    Nothing outside of `path` is read: symbolic links that lead out of it, and those to folders, are bad examples.

    Args:
        path: the folder.
        validation: share of each class that chooses, 0.1 if not given; only where there is no folder for it.
        test: share of each class that is only measured, 0.2 if not given; only where there is no folder for it.
        split_seed: another one gives other splits.

    Raises:
        ToolkitError: nothing there, one class only, pictures and sounds mixed, too few examples of a class, the folder
            of a split is a link.
    """
    wanted = {"validation": validation, "test": test}
    refuse(check_shares(wanted))
    root = existing(path, "data.path", folder=True)
    origin = f"folder {root}"
    try:
        found = {split: _Listing.of(root, base) for split, base in _bases(root, origin).items()}
    except OSError as error:
        raise _unreadable(error) from error
    kind = _kind(list(found.values()), origin)
    class_names = in_order(found["train"].classes)
    at_least_two(class_names, origin, "put the files of each class into a folder of its own, path/class/file")
    for split, listing in found.items():
        unknown = sorted(set(listing.classes) - set(class_names))
        if unknown:
            raise ToolkitError(
                f"{root / split} has the class '{unknown[0]}'{did_you_mean(unknown[0], class_names)}, which "
                f"{root / 'train'} has not ({', '.join(class_names[:20])}): rename or remove the folder."
            )
    shares = shares_to_cut(wanted, found, split_seed=split_seed, where=origin)
    splits = _cut(found, class_names, shares, split_seed=split_seed, where=origin)
    return Source(kind, class_names, splits, channels=3 if kind == "image" else None, origin=origin)


folder.check = check_shares  # type: ignore[attr-defined]


@dataclasses.dataclass
class _Listing:
    """What lies under one folder of classes."""

    classes: list[str]
    files: list[tuple[str, Path, str]]  # id, file, class
    bad: list[BadExample]
    others: Counter[str]  # suffixes that are neither picture nor sound

    @classmethod
    def of(cls, root: Path, base: Path) -> _Listing:
        listing = cls([], [], [], Counter())
        for entry in sorted(base.iterdir()):
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not entry.is_symlink():
                listing.classes.append(entry.name)
                for file in _files(entry):
                    listing._add(root, file, entry.name)
            elif entry.suffix.lower() in IMAGES | SOUNDS or entry.is_symlink():
                listing.bad.append(BadExample(_id(root, entry), "lies beside the folders of classes, not in one"))
        listing.files.sort(key=lambda item: item[0])
        return listing

    def _add(self, root: Path, file: Path, class_name: str) -> None:
        name, suffix = _id(root, file), file.suffix.lower()
        reason = _unusable(root, file, name)
        if reason is not None and (file.is_symlink() or suffix in IMAGES | SOUNDS):
            self.bad.append(BadExample(name, reason))
        elif suffix in IMAGES | SOUNDS:
            self.files.append((name, file, class_name))
        else:
            self.others[suffix or "(no suffix)"] += 1


def _files(directory: Path) -> Iterator[Path]:
    """Files at any depth, none hidden; links to folders are given as they are and not followed."""

    def stop(error: OSError) -> None:
        raise _unreadable(error) from error

    return walk(directory, stop)


def _unreadable(error: OSError) -> ToolkitError:
    where = shown(str(error.filename))[:200]
    return ToolkitError(f"data.path: {where} cannot be read ({error.strerror}): allow it or remove it.")


def _id(root: Path, file: Path) -> str:
    return os.fsencode(file.relative_to(root).as_posix()).decode(errors="backslashreplace")


def _unusable(root: Path, file: Path, name: str) -> str | None:
    """Why a file is left out unread; None for an ordinary one."""
    if name != file.relative_to(root).as_posix():
        return "its name is not UTF-8"
    return unusable(root, file)


def _bases(root: Path, origin: str) -> dict[str, Path]:
    """Where the classes of each split lie: `root` alone stands for all splits as "train"."""
    children = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    names = {entry.name for entry in children}
    # A class may be called "train" (pictures of trains): then files lie directly in it.
    holders = {entry.name for entry in children if not any(_visible_files(entry)) and any(_folders(entry))}
    if "train" not in holders:
        wrong = sorted(holders & _LIKE_SPLITS)
        if wrong and holders == names:
            raise ToolkitError(
                f"{origin} has folders like '{wrong[0]}', but none called 'train' with classes in it: call the folders "
                "of splits train, validation and test, or put the classes directly into the folder."
            )
        return {"train": root}
    extra = sorted(names - set(SPLITS))
    if extra:
        raise ToolkitError(
            f"{origin} has 'train' beside '{extra[0]}'{did_you_mean(extra[0], SPLITS)}: beside 'train' only "
            "'validation' and 'test' may stand; rename or remove the folder."
        )
    for name in sorted(names):
        if (root / name).is_symlink():
            raise ToolkitError(
                f"data.path: {root / name} is a symbolic link, and links to folders are not followed: put the folder "
                "itself there, or give the path of one that holds all splits."
            )
    return {name: root / name for name in SPLITS if name in names}


def _visible_files(directory: Path) -> Iterator[Path]:
    return (entry for entry in directory.iterdir() if entry.is_file() and not entry.name.startswith("."))


def _folders(directory: Path) -> Iterator[Path]:
    return (entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _kind(listings: Sequence[_Listing], origin: str) -> Literal["image", "audio"]:
    images = [name for listing in listings for name, file, _ in listing.files if file.suffix.lower() in IMAGES]
    sounds = [name for listing in listings for name, file, _ in listing.files if file.suffix.lower() in SOUNDS]
    if images and sounds:
        raise ToolkitError(
            f"{origin} mixes {len(images)} pictures ('{images[0]}') and {len(sounds)} sounds ('{sounds[0]}'): keep one "
            "kind."
        )
    if not images and not sounds:
        others = sum((listing.others for listing in listings), Counter[str]())
        unusable = [bad for listing in listings for bad in listing.bad]
        seen = f"'{unusable[0].id}': {unusable[0].reason}" if unusable else "no file at all"
        if others:
            seen = f"only {', '.join(f'{count} × {suffix}' for suffix, count in others.most_common(10))}"
        raise ToolkitError(
            f"{origin} holds no picture ({_words(IMAGES)}) and no sound ({_words(SOUNDS)}) in folders of classes "
            f"({seen}): put them into path/class/file."
        )
    return "image" if images else "audio"


def _words(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffix[1:] for suffix in suffixes))


def _cut(
    found: Mapping[str, _Listing],
    class_names: Sequence[str],
    shares: Mapping[str, float],
    *,
    split_seed: int,
    where: str,
) -> dict[str, Examples]:
    """Examples of the three splits: those with a folder as they lie there, the others cut from train."""
    import numpy as np

    number = {name: i for i, name in enumerate(class_names)}
    splits: dict[str, Examples] = {}
    for split, listing in found.items():
        ids = [name for name, _, _ in listing.files]
        files = [file for _, file, _ in listing.files]
        labels = [number[class_name] for _, _, class_name in listing.files]
        bad = tuple(listing.bad)
        if split == "train":
            splits |= share_out(
                files, labels, ids, shares, split_seed=split_seed, class_names=class_names, where=where, bad=bad
            )
        elif not ids:
            raise ToolkitError(
                f"{where}: the folder '{split}' holds no example: fill it, or remove it to have it cut from 'train'."
            )
        else:
            splits[split] = Examples(files, np.asarray(labels, np.int64), ids, bad)
    return {split: splits[split] for split in SPLITS}
