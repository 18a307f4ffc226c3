"""Tests of sound files: each is read rightly or refused with the cause."""

import numpy as np
import pytest
import soundfile

from vaezoo.data.sound_files import choose_rate, cut_frames, find_sounds, memory_of_sounds, read_sound, resample
from vaezoo.errors import ConfigError

RATE = 8000
TIME = np.arange(4000) / RATE
TONE = 0.5 * np.sin(2 * np.pi * 440 * TIME)


def whole_numbers(bits):
    """A tone as whole numbers, with the largest and the least one."""
    numbers = np.round(TONE * 2 ** (bits - 1)).astype(np.int64)
    numbers[:2] = 2 ** (bits - 1) - 1, -(2 ** (bits - 1))
    return numbers


@pytest.mark.parametrize(
    ("name", "bits", "subtype"),
    [
        ("a.wav", 8, "PCM_U8"),
        ("a.wav", 16, "PCM_16"),
        ("a.wav", 24, "PCM_24"),
        ("a.wav", 32, "PCM_32"),
        ("a.flac", 8, "PCM_S8"),
        ("a.flac", 16, "PCM_16"),
        ("a.flac", 24, "PCM_24"),
    ],
)
def test_whole_numbers_are_scaled_exactly(name, bits, subtype, tmp_path):
    """A sample is number / 2^(bits - 1); the two samples at the ends of the range are counted."""
    numbers = whole_numbers(bits)
    soundfile.write(tmp_path / name, (numbers << (32 - bits)).astype(np.int32), RATE, subtype=subtype)
    sound = read_sound(tmp_path / name)
    assert (sound.rate, sound.channels, sound.num_clipped) == (RATE, 1, 2)
    assert sound.samples.dtype == np.float32
    assert np.array_equal(sound.samples, (numbers / 2 ** (bits - 1)).astype(np.float32))


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_stay(subtype, tmp_path):
    """Values above 1 are kept, and counted."""
    tone = TONE.copy()
    tone[7] = 1.5
    soundfile.write(tmp_path / "a.wav", tone, RATE, subtype=subtype)
    sound = read_sound(tmp_path / "a.wav")
    assert np.array_equal(sound.samples, tone.astype(np.float32))
    assert sound.num_clipped == 1


def test_channels_are_mixed(tmp_path):
    """Two channels become their mean, also where one of them is silent."""
    soundfile.write(tmp_path / "a.wav", np.stack([TONE, -TONE / 2], 1), RATE, subtype="FLOAT")
    sound = read_sound(tmp_path / "a.wav")
    assert sound.channels == 2
    assert np.allclose(sound.samples, TONE / 4, atol=1e-7)


def test_ogg_sounds_as_it_was(tmp_path):
    """A lossy format: the tone differs by less than a twentieth of its size."""
    soundfile.write(tmp_path / "a.ogg", TONE, RATE)
    sound = read_sound(tmp_path / "a.ogg")
    assert len(sound.samples) == len(TONE)
    assert np.abs(sound.samples - TONE)[200:-200].max() < 0.025


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_truncated_files_are_refused(name, share, tmp_path):
    """A shorter file is never read as a shorter sound."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000)
    soundfile.write(tmp_path / name, noise, RATE)
    assert len(read_sound(tmp_path / name).samples) == 40_000
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(Exception) as error:  # noqa: PT011  # of any class; the data module tells the file
        read_sound(tmp_path / name)
    assert str(error.value)


def test_ogg_without_its_last_page_is_refused(tmp_path):
    """Each page is whole, but the last one is not marked as such."""
    soundfile.write(tmp_path / "a.ogg", np.random.default_rng(0).uniform(-0.5, 0.5, 40_000), RATE)
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(content[: content.rindex(b"OggS")])
    with pytest.raises(ValueError, match="its last page is missing"):
        read_sound(tmp_path / "a.ogg")


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_flipped_bits_are_refused(name, tmp_path):
    """These formats have checksums (.wav has none)."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, 20_000), RATE)
    content = (tmp_path / name).read_bytes()
    for at in rng.integers(len(content) // 2, len(content), 20):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises((ValueError, soundfile.LibsndfileError)):
            read_sound(tmp_path / name)


def test_truncated_wav_says_how_much_is_missing(tmp_path):
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:-1000])
    with pytest.raises(ValueError, match=r"it has 7,000 of 8,000 bytes of sound"):
        read_sound(tmp_path / "a.wav")


def test_wav_with_an_unknown_length_and_other_chunks(tmp_path):
    """Programs that write to a pipe do not know the length; chunks of text may stand before the sound."""
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    content = (tmp_path / "a.wav").read_bytes()
    at = content.index(b"data")
    unknown = b"\xff\xff\xff\xff"
    (tmp_path / "b.wav").write_bytes(content[:4] + unknown + content[8 : at + 4] + unknown + content[at + 8 :])
    assert np.array_equal(read_sound(tmp_path / "b.wav").samples, read_sound(tmp_path / "a.wav").samples)
    note = b"LIST" + (5).to_bytes(4, "little") + b"data!\0"
    (tmp_path / "c.wav").write_bytes(content[:at] + note + content[at:])
    assert len(read_sound(tmp_path / "c.wav").samples) == 4000
    (tmp_path / "c.wav").write_bytes((content[:at] + note + content[at:])[:-100])
    with pytest.raises(ValueError, match=r"7,900 of 8,000 bytes"):
        read_sound(tmp_path / "c.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(value, tmp_path):
    tone = TONE.copy()
    tone[9] = value
    soundfile.write(tmp_path / "a.wav", tone, RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match="NaN or infinite"):
        read_sound(tmp_path / "a.wav")


def test_empty_files_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", TONE[:0], RATE)
    with pytest.raises(ValueError, match="no samples"):
        read_sound(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(soundfile.LibsndfileError):
        read_sound(tmp_path / "b.wav")
    (tmp_path / "c.wav").write_bytes(b"no sound at all")
    with pytest.raises(soundfile.LibsndfileError):
        read_sound(tmp_path / "c.wav")


@pytest.mark.parametrize("rate", [16_000, 11_025, 8000])
def test_a_resampled_tone_is_the_tone_at_that_rate(rate):
    """A tone of 440 Hz at 16 kHz or 11,025 Hz becomes the tone of 440 Hz at 8 kHz, away from the ends."""
    time = np.arange(rate // 2) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    found = resample(tone, rate, RATE)
    assert found.dtype == np.float32
    assert abs(len(found) - 4000) <= 1
    assert np.abs(found[200:3800] - TONE[200:3800]).max() < 2e-3


def test_tones_above_half_the_rate_are_filtered_out():
    """Without a filter, a tone of 7 kHz would come out as one of 1 kHz."""
    tone = np.sin(2 * np.pi * 7000 * np.arange(8000) / 16_000).astype(np.float32)
    assert np.abs(resample(tone, 16_000, RATE)[200:-200]).max() < 1e-2


def test_the_rate_of_a_folder():
    assert choose_rate({8000: 3}, None, "WAVS") == 8000
    assert choose_rate({8000: 3, 16_000: 1}, 16_000, "WAVS") == 16_000
    with pytest.raises(
        ConfigError, match=r"several rates, 8000 Hz \(3\), 16000 Hz \(1\): choose one with data.rate=8000"
    ):
        choose_rate({16_000: 1, 8000: 3}, None, "WAVS")


def test_frames_are_parts_in_order():
    frames = cut_frames(np.arange(10, dtype=np.float32), 4)
    assert frames.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert cut_frames(np.arange(3, dtype=np.float32), 4).shape == (0, 4)


def test_sounds_of_a_folder(tmp_path):
    """Hidden files and folders and other files are ignored and counted; capital letters in a suffix are fine."""
    for name in ("b/1.wav", "a.FLAC", "b/2.ogg", ".c.wav", "__MACOSX/d.wav", ".git/e.wav", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_sounds(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == ["a.FLAC", "b/1.wav", "b/2.ogg"]
    assert found[1:] == (3, 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.mp3").touch()
    with pytest.raises(ConfigError, match=r"data.root=\S+ has no sounds among 1 files"):
        find_sounds(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"data.root=\S+ is no folder"):
        find_sounds(tmp_path / "z")


def test_memory_of_sounds(tmp_path):
    """8 bytes for each sample, float32 and its frame; and the largest file is read as float64 with all channels."""
    soundfile.write(tmp_path / "a.wav", np.zeros((1000, 3)), RATE)
    soundfile.write(tmp_path / "b.flac", np.zeros(2000), RATE)
    (tmp_path / "c.wav").write_bytes(b"no sound")
    assert memory_of_sounds(sorted(tmp_path.iterdir())) == 8 * 3000 + 8 * 3000
