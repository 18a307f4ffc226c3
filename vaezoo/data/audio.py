"""Sounds of your own: .wav, .flac and .ogg files."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.found_files import FoundFiles, bad_files_error, show_path
from vaezoo.data.mel import HOP, WINDOW, log_mel, mel_filters
from vaezoo.data.memory import check_memory
from vaezoo.data.own import OwnData
from vaezoo.data.sound_files import (
    SUFFIXES,
    Sound,
    choose_rate,
    cut_frames,
    find_sounds,
    memory_of_sounds,
    read_sound,
    resample,
)
from vaezoo.data.splits import Split, count_labels, digest_rows
from vaezoo.errors import ConfigError, suggest

PICTURE_SIZE = (64, 256)  # height and width of a sound as a picture, in pixels
FEATURES = ("wave", "log_mel")


class AudioData(OwnData):
    """Provide frames of sounds, parts of equal length, as real numbers: waves (1, T), or their spectrograms.

    Whole numbers in a file are scaled to [-1, 1) exactly. Channels are mixed to one. The rest of a file after its last
    whole frame is left out. The sets consist of whole files, so no file has frames in two sets. If at least two
    sub-folders have sounds, their names are the classes; the label of a sound outside of them is -1.

    Of energies u the model sees x = (u - loc) / scale, and log p(u) is reported. loc is the mean of each band in the
    training and scale, one number, the standard deviation from these means. So a normal with one scale has equal noise
    in all bands, as in probabilistic PCA. Waves are not changed.

    Args:
        root: folder of .wav, .flac and .ogg files, also in sub-folders.
        frame: length T of a frame in samples.
        seconds: length of a frame in seconds, in place of ``frame``.
        rate: samples per second; files with another rate are resampled. None: the rate of the files, which must be the
            same for all.
        features: ``wave``: the samples (1, T); ``log_mel``: the logarithms of the energies in bands of the mel scale,
            every 10 ms, (1, mels, steps) (``vaezoo.data.mel``).
        mels: number of bands of ``log_mel``.
        on_bad: what happens if files cannot be read. ``error``: the first 20 are named in an error; ``skip``: they are
            left out.
        **kwargs: arguments of ``OwnData`` and ``DataModule``.

    Raises:
        ConfigError: an option has no possible value.
    """

    noun = "sound"
    label_place = "data.root has a sub-folder for each class"
    data_kind = "real"
    file_suffixes = SUFFIXES

    def __init__(
        self,
        root: str = "data",
        frame: int = 1024,
        seconds: float | None = None,
        rate: int | None = None,
        features: str = "wave",
        mels: int = 40,
        on_bad: str = "error",
        **kwargs: Any,
    ):
        super().__init__(root=root, **kwargs)
        for name, choice, choices in (("on_bad", on_bad, ("error", "skip")), ("features", features, FEATURES)):
            if choice not in choices:
                raise ConfigError(f"data.{name}={choice} is unknown: {suggest(choice, choices, f'data.{name}=')}")
        for name, value in {"frame": frame, "seconds": seconds, "rate": rate, "mels": mels}.items():
            if value is not None and value <= 0:
                raise ConfigError(f"data.{name}={value} should be a number above 0")
        self.frame, self.seconds, self.rate, self.on_bad = frame, seconds, rate, on_bad
        self.features, self.mels = features, mels
        self.class_names = []
        self.loc, self.scale = torch.zeros(1), 1.0  # a loc for each band; those of a wave change nothing
        self.found: dict[str, Any] = {}
        self.frame_keys: dict[str, np.ndarray] = {}

    @property
    def is_standardized(self) -> bool:  # type: ignore[override]
        return self.features == "log_mel"

    # Reading.

    def read(self) -> tuple[Split, ...]:
        split, digests = self.read_all()
        rows = self.divide(digests)
        assert isinstance(split.x, Tensor)
        if self.is_standardized:
            train = split.x[rows["train"], 0].double()  # (N, bands, steps)
            self.loc = train.mean((0, 2))
            self.scale = float((train - self.loc[:, None]).square().mean().sqrt()) or 1.0
        split = Split(self.standardize(split.x), split.y)
        return tuple(split.select(row) for row in rows.values())

    def fits(self, description: Mapping[str, Any]) -> bool:
        return "features" in description

    def use_description(self, description: Mapping[str, Any]) -> None:
        self.rate = self.rate or description.get("rate")
        self.loc = torch.tensor(description.get("loc", [0.0]), dtype=torch.float64)
        self.scale = description.get("scale", 1.0)

    def read_new(self, description: Mapping[str, Any]) -> tuple[Split, np.ndarray]:
        split, digests = super().read_new(description)
        assert isinstance(split.x, Tensor)
        if split.x.shape[-2] != len(self.loc):
            raise ConfigError(
                f"the sounds have {split.x.shape[-2]} bands, but those of the training {len(self.loc)}: use "
                f"data.features and data.mels of the training"
            )
        return Split(self.standardize(split.x), split.y), digests

    def standardize(self, u: Tensor) -> Tensor:
        """Return samples or energies as the model sees them, float32, of the same shape; samples do not change."""
        return ((u.double() - self.loc[:, None]) / self.scale).float()

    def in_file_units(self, x: Tensor) -> Tensor:
        """Return the samples or energies of sounds as the model sees them, float32, of the same shape."""
        return (x.cpu().double() * self.scale + self.loc[:, None]).float()

    def divide(self, digests: np.ndarray) -> dict[str, Tensor]:
        if (different := len(np.unique(digests))) < 3:
            raise ConfigError(
                f"data.root={self.root} has {different} different sounds that are as long as a frame, but training, "
                f"validation and test get whole files: cut the sounds into at least 3 files"
            )
        return super().divide(digests)

    def all_keys(self) -> dict[str, np.ndarray]:
        """Return the file of each frame, relative to ``root``, and its start in seconds."""
        return self.frame_keys

    def read_all(self) -> tuple[Split, np.ndarray]:
        files = find_sounds(self.root)
        recordings, bad = self.read_sounds(files)
        self.rate = rate = choose_rate(
            Counter(recording.rate for recording in recordings.values()), self.rate, self.root
        )
        length = self.frame_length(rate)
        self.class_names = files.class_names
        digests = np.concatenate([digest_rows(recording.samples[None]) for recording in recordings.values()])
        frames = [
            cut_frames(resample(recording.samples, recording.rate, rate), length) for recording in recordings.values()
        ]
        numbers = np.array([len(parts) for parts in frames])  # of frames of each file
        if not numbers.any():
            longest = max(len(recording.samples) / recording.rate for recording in recordings.values())
            raise ConfigError(
                f"no sound in data.root={self.root} is as long as a frame, {length / rate:g} s; the longest has "
                f"{longest:g} s: use a smaller {'data.frame' if self.seconds is None else 'data.seconds'}"
            )
        starts = np.concatenate([np.arange(number) * (length / rate) for number in numbers])
        names = np.array([files.paths[number] for number in recordings], dtype=object)
        self.frame_keys = {"file": np.repeat(names, numbers), "start_seconds": starts}
        waves = torch.from_numpy(np.concatenate(frames))
        x = (waves if self.features == "wave" else self.to_log_mel(waves, rate)).unsqueeze(1)
        y = torch.from_numpy(np.repeat(files.labels[list(recordings)], numbers))
        total = sum(len(recording.samples) / recording.rate for recording in recordings.values())
        self.found = {
            "sound files": len(files.paths),
            "bad files": {show_path(files.paths[number]): cause for number, cause in bad.items()},
            "ignored files": files.ignored,
            "hidden files and folders": files.num_hidden,
            "links not followed": files.num_links,
            "duplicate files": len(recordings) - len(np.unique(digests)),
            "rate": rate,
            "resampled files": sum(recording.rate != rate for recording in recordings.values()),
            "files with several channels, mixed": sum(recording.channels > 1 for recording in recordings.values()),
            "files shorter than a frame, left out": int((numbers == 0).sum()),
            "seconds of sound": round(total, 3),
            "seconds left out at the ends": round(total - waves.numel() / rate, 3),
            "samples in a frame": length,
            "silent frames": int((waves == waves[:, :1]).all(-1).sum()),
            "values": [float(x.min()), float(x.max())],
            "samples at full scale": sum(recording.num_clipped for recording in recordings.values()),
            "classes": count_labels(y, self.class_names),
        }
        return Split(x, y), np.repeat(digests, numbers)  # a frame has the digest of its file

    def frame_length(self, rate: int) -> int:
        """Return the number of samples in a frame."""
        return self.frame if self.seconds is None else max(1, round(self.seconds * rate))

    def read_example(self, path: Path) -> Tensor:
        """Return the first frame of a sound file."""
        assert self.rate is not None
        try:
            recording = read_sound(path)
        except Exception as error:  # soundfile raises errors of several classes for broken files
            raise ConfigError(f"the sound cannot be read: {describe_sound_error(path, error)}") from error
        length = self.frame_length(self.rate)
        waves = torch.from_numpy(cut_frames(resample(recording.samples, recording.rate, self.rate), length)[:1])
        if not len(waves):
            seconds = len(recording.samples) / recording.rate
            raise ConfigError(f"the sound has {seconds:g} s, less than a frame, {length / self.rate:g} s")
        x = (waves if self.features == "wave" else self.to_log_mel(waves, self.rate)).unsqueeze(1)
        return self.standardize(x)

    def to_log_mel(self, waves: Tensor, rate: int) -> Tensor:
        """Return the spectrograms of frames (N, T).

        Raises:
            ConfigError: a frame is shorter than a window, or there are more bands than a window can tell apart.
        """
        window = round(WINDOW * rate)
        if round(HOP * rate) < 1:
            raise ConfigError(f"data.features=log_mel needs more samples per second than {rate}: use features=wave")
        if waves.shape[1] < window:
            raise ConfigError(
                f"data.features=log_mel needs frames of at least {WINDOW} s, {window} samples, but they have "
                f"{waves.shape[1]}: use data.frame={window} or more"
            )
        filters = mel_filters(self.mels, torch.fft.rfftfreq(window, 1 / rate, dtype=torch.float64))
        if (filters.sum(1) == 0).any():
            raise ConfigError(
                f"data.mels={self.mels} is too many for {rate} samples per second, a band has no frequency: use fewer"
            )
        return torch.cat([log_mel(part, rate, self.mels) for part in waves.split(1000)])

    def read_sounds(self, files: FoundFiles) -> tuple[dict[int, Sound], dict[int, str]]:
        """Read all files: return the good ones, and the causes of the bad ones, both by the number of the file.

        Raises:
            ConfigError: files are bad and ``on_bad`` is ``error``, none is good, or they do not fit into memory.
        """
        paths = [files.root / name for name in files.paths]
        check_memory(f"data.root={self.root}", memory_of_sounds(paths), "use a part of the sounds")
        recordings: dict[int, Sound] = {}
        bad: dict[int, str] = {}
        for number, path in enumerate(paths):
            try:
                recordings[number] = read_sound(path)
            except Exception as error:  # soundfile raises errors of several classes for broken files
                bad[number] = describe_sound_error(path, error)
        if bad and (self.on_bad == "error" or not recordings):
            raise bad_files_error(files, bad)
        if bad:
            print(f"{len(bad):,} of {len(paths):,} sound files cannot be read and are left out")
        return recordings, bad

    # For people.

    def in_user_units(self, likelihood: dict[str, Any]) -> dict[str, Any]:
        if not self.is_standardized:
            return likelihood
        self.inspect()
        return {"_target_": "vaezoo.families.Rescaled", "family": likelihood, "scale": self.scale}

    def likelihood_config(self) -> dict[str, Any]:
        return self.in_user_units(super().likelihood_config())

    def describe(self) -> dict[str, Any]:
        scales = {"loc": self.loc.tolist(), "scale": self.scale}
        return super().describe() | scales | {key: getattr(self, key) for key in ("rate", "features", "class_names")}

    def encoding(self, description: Mapping[str, Any]) -> Any:
        return {key: description.get(key) for key in ("rate", "features", "loc", "scale")}

    def report(self) -> dict[str, Any]:
        return {name: value for name, value in self.found.items() if name != "values"}  # the range of all data

    def to_images(self, x: Tensor) -> Tensor:
        """Return pictures (N, 1, H, W): the range of the samples of a wave in each column, from -1 to 1.

        Of a spectrogram, one pixel for each energy: low bands below, from the least to the largest value of all data.
        """
        u = self.in_file_units(x)
        if self.features == "wave":
            return draw_waves(u.squeeze(1))
        low, high = self.found["values"]
        return ((u - low) / max(high - low, 1e-12)).clamp(0, 1).flip(2)

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write each wave as .wav, 16 bits, clipped to [-1, 1]; spectrograms as one .npy, since they are no sounds."""
        import soundfile

        if self.features != "wave":
            file = path.with_name(f"{path.name}.npy")
            np.save(file, self.in_file_units(x).numpy())
            return [file]
        assert self.rate is not None
        files = [path.with_name(f"{path.name}-{number}.wav") for number in range(len(x))]
        for file, samples in zip(files, self.in_file_units(x).squeeze(1).numpy(), strict=True):
            soundfile.write(file, samples.clip(-1, 1), self.rate, subtype="PCM_16")
        return files


def describe_sound_error(path: Path, error: Exception) -> str:
    """Return the cause of an error of ``read_sound``, in one line."""
    cause = str(error).removeprefix(f"Error opening {str(path)!r}: ").strip().split("\n")[0]
    return cause.replace(str(path), path.name) or type(error).__name__


def draw_waves(x: Tensor) -> Tensor:
    """Draw waves (N, T), white on black, (N, 1, 64, 256): a column is lit from its least to its largest sample."""
    height, width = PICTURE_SIZE
    edges = torch.linspace(0, x.shape[1], width + 1).long()
    columns = [x[:, start : max(int(end), int(start) + 1)] for start, end in pairwise(edges)]
    low, high = (torch.stack([getattr(column, name)(1) for column in columns], 1) for name in ("amin", "amax"))
    row = torch.arange(height, device=x.device)[:, None]
    top, bottom = (((1 - value.clamp(-1, 1)) / 2 * (height - 1)).round()[:, None] for value in (high, low))
    return ((top <= row) & (row <= bottom)).float().unsqueeze(1)
