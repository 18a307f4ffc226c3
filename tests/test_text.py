"""Tests of the data module of texts: vocabulary, splits, long lines, and what a model and a user get."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import config

import vaezoo
from vaezoo.data import TextData, Topics, prepare_texts
from vaezoo.data.text import vocabulary_of
from vaezoo.data.text_files import tokenize
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build

SENTENCES = [f"the {animal} number {i} sat, and {'slept ' * (i % 5)}!" for i, animal in enumerate(["cat", "dog"] * 60)]


def make(folder, lines=SENTENCES, **options):
    (folder / "a.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return TextData(path=str(folder / "a.txt"), **{"batch_size": 16, **options})


def ready(data):
    data.setup()
    return data


def splits_of(data):
    return data.train, data.val, data.test


def texts(data, split):
    return [data.decode_tokens(row) for row in split.x]


def test_new_texts_are_prepared_as_those_of_the_training(tmp_path):
    """The numbers of the tokens, the end and the padding; unknown tokens are <unk>, a long text is cut."""
    data = ready(make(tmp_path, max_tokens=6))
    x = prepare_texts(["the cat sat", " the zebra number 3 sat , and more"], data.describe())
    assert torch.equal(x[0], data.encode_line("the cat sat"))
    assert data.decode_tokens(x[1]) == data.decode_tokens(data.encode_line("the zebra number 3 sat , and more"))
    assert x.shape == (2, 6)
    assert x[1, 1] == 0


@pytest.mark.parametrize("tokens", ["word", "character", "byte"])
def test_each_line_is_in_one_split(tokens, tmp_path):
    """All lines of the file, each once, with the tokens that the test finds by itself."""
    lines = [*SENTENCES, "Größe 😀 one"]
    data = ready(make(tmp_path, lines, tokens=tokens, max_tokens=80))
    rows = {tuple(row.tolist()) for split in splits_of(data) for row in split.x}
    names = data.vocabulary.names
    expected = set()
    for line in lines:
        numbers = [names.index(piece) if piece in names else 0 for piece in tokenize(line, tokens)]
        expected.add((*numbers, 1, *[-1] * (79 - len(numbers))))
    assert rows == expected
    assert sum(len(split.x) for split in splits_of(data)) == len(lines)
    assert data.train.x.dtype == torch.int64
    assert data.train.y.unique().tolist() == [-1]
    assert (data.noun, data.data_kind, data.shape) == ("sentence", "token", (80,))


def test_the_vocabulary_is_that_of_the_training_lines(tmp_path):
    """A word that only the other lines have is unknown."""
    data = ready(make(tmp_path))
    seen = {piece for text in texts(data, data.train) for piece in text.split(" ")}
    numbers = {str(i) for i in range(120)}
    assert numbers & set(data.vocabulary.names) == numbers & seen
    assert len(numbers & seen) < 120
    assert (data.train.x != 0).all()
    assert (data.test.x == 0).any()
    unknown = torch.cat([data.val.x, data.test.x])
    words = unknown[(unknown >= 0) & (unknown != 1)]
    assert data.report()["unknown tokens in validation and test"] == round(float((words == 0).float().mean()), 4)


def test_vocabulary_and_split_are_functions_of_the_text_and_the_seed(tmp_path):
    """The same for another seed of the run; another one for another ``split_seed``."""
    a, b, c = (ready(make(tmp_path, **seeds)) for seeds in ({}, {"seed": 1}, {"split_seed": 1}))
    assert a.vocabulary.hash == b.vocabulary.hash != c.vocabulary.hash
    assert all(torch.equal(x.x, y.x) for x, y in zip(splits_of(a), splits_of(b), strict=True))
    assert texts(a, a.test) != texts(c, c.test)


def test_equal_lines_are_on_one_side(tmp_path):
    """Also lines that differ in upper and lower case only, if case is left out."""
    data = ready(make(tmp_path, [*SENTENCES, *map(str.upper, SENTENCES)], lower_case=True, max_tokens=20))
    sets = [{tuple(row.tolist()) for row in split.x if (row != 0).all()} for split in splits_of(data)]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert data.report()["duplicate lines"] == 120
    assert all(name == name.lower() for name in data.vocabulary.names)


def test_lines_of_equal_words_are_on_one_side(tmp_path):
    """White space between words is not seen by the model; between characters it is."""
    lines = [*SENTENCES, *(line.replace(" ", " \t ") for line in SENTENCES)]
    data = ready(make(tmp_path, lines, max_tokens=20))
    assert data.report()["duplicate lines"] == 120
    assert {name: rows[rows >= 120].sub(120).tolist() for name, rows in data.rows.items()} == {
        name: rows[rows < 120].tolist() for name, rows in data.rows.items()
    }
    assert ready(make(tmp_path, lines, tokens="character")).report()["duplicate lines"] == 0


def test_lines_that_are_too_long(tmp_path):
    """Cut to their first tokens without an end, or left out; both are counted."""
    cut, drop = (ready(make(tmp_path, max_tokens=10, long=long)) for long in ("cut", "drop"))
    lengths = np.array([len(tokenize(line, "word")) + 1 for line in SENTENCES])
    num_long = int((lengths > 10).sum())
    assert 0 < num_long < 120
    rows = torch.cat([split.x for split in splits_of(cut)])
    assert len(rows) == 120
    assert int((rows == 1).any(1).logical_not().sum()) == num_long
    rows = torch.cat([split.x for split in splits_of(drop)])
    assert len(rows) == 120 - num_long
    assert (rows == 1).sum(1).eq(1).all()
    assert cut.report()["lines of more than 10 tokens, cut"] == num_long
    assert drop.report()["lines of more than 10 tokens, left out"] == num_long
    for data in (cut, drop):
        for split, mean in zip(splits_of(data), data.report()["tokens per sentence"].values(), strict=True):
            assert mean == pytest.approx(float((split.x >= 0).sum(1).float().mean()), abs=1e-4)


def test_the_length_fits_nearly_all_lines(tmp_path):
    """One very long line does not decide the length of all."""
    lines = [*SENTENCES, *(f"{line} yes" for line in SENTENCES)]
    data = ready(make(tmp_path, [*lines, "word " * 5000]))
    longest = max(len(tokenize(line, "word")) + 1 for line in lines)
    assert data.shape == (longest,)
    assert data.report()["longest line in tokens"] == 5001


def test_text_for_people(tmp_path):
    """Encoding and decoding, a file of samples, and pictures of the words."""
    data = ready(make(tmp_path))
    x = data.encode_line("the cat sat, and slept")
    assert x.shape == data.shape
    assert data.decode_tokens(x) == "the cat sat, and slept"
    batch = next(iter(data.val_dataloader()))
    (file,) = data.save_examples(batch.x, tmp_path / "samples")
    assert file.read_text(encoding="utf-8").splitlines() == texts(data, data.val)
    pictures = data.to_images(batch.x)
    assert pictures.shape == (len(batch.x), 1, 64, 256)
    assert 0 <= pictures.min() < 0.2 < pictures.max() == 1
    assert (1 - pictures).sum((1, 2, 3)).gt(50).all()
    assert (1 - data.to_images(data.encode_line("cat")[None])).sum() < (1 - data.to_images(x[None])).sum()
    letters = ready(make(tmp_path, tokens="byte"))
    (file,) = letters.save_examples(torch.tensor([[2 + 65, 2 + 10, 2 + 66, 1]]), tmp_path / "samples")
    assert file.read_text() == "A B\n"


def test_the_files_of_a_folder_are_classes(tmp_path):
    """Each line has the class of its file, also after the division, and in new texts; hidden files are none."""
    folder = tmp_path / "authors"
    folder.mkdir()
    for name in ("austen", "melville"):
        (folder / f"{name}.txt").write_text("".join(f"{name} wrote line {i}\n\n" for i in range(40)))
    (folder / ".hidden.txt").write_text("nobody wrote it\n")
    data = ready(TextData(path=str(folder)))
    assert data.describe()["class_names"] == ["austen", "melville"]
    assert data.report()["classes"] == {"austen": 40, "melville": 40}
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        words = [text.split()[0] for text in texts(data, split)]
        assert [data.class_names[label] for label in split.y] == words
        assert all(data.keys(name)["line"] % 2 == 1)
    (folder / "austen.txt").rename(folder / "bronte.txt")
    new = TextData(path=str(folder))
    new.setup_new(data.describe())
    assert sorted(set(new.all.y.tolist())) == [-1, 1]
    (folder / "bronte.txt").unlink()
    with pytest.raises(ConfigError, match=r"is a folder with 1 \.txt files: give a text file, or a folder with at"):
        ready(TextData(path=str(folder)))


def test_a_trained_model_knows_the_vocabulary(tmp_path):
    """The description is plain values, and gives back the vocabulary."""
    data = ready(make(tmp_path, lower_case=True))
    description = json.loads(json.dumps(data.describe()))
    vocabulary = vocabulary_of(description)
    assert vocabulary.hash == data.vocabulary.hash == description["vocabulary_hash"]
    assert vocabulary.encode("The DOG") == data.vocabulary.encode("the dog")
    assert json.dumps(data.report())
    sizes = {"num_tokens": len(data.vocabulary), "length": data.shape[0], "end_token": 1}
    assert data.likelihood_config() == {"_target_": "vaezoo.families.TokenSequence"} | sizes
    build(data.likelihood_config(), "model.likelihood").check(data.train.x)  # nothing follows the end of a sentence
    assert data.input_config() == {"_target_": "vaezoo.nets.TokenInput", "num_tokens": len(data.vocabulary)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": "words"}, "did you mean data.tokens=word"),
        ({"long": "crop"}, "did you mean data.long=drop|choose from cut, drop"),
        ({"max_tokens": 1}, "data.max_tokens=1 should be >= 2"),
        ({"max_tokens": 3, "long": "drop"}, "data.max_tokens=3 leaves nothing"),
        ({"path": ""}, "data.path is missing"),
    ],
)
def test_options_that_are_refused(options, words, tmp_path):
    path = make(tmp_path).path
    with pytest.raises(ConfigError, match=words):
        ready(TextData(**{"path": path, "batch_size": 16, **options}))


def test_a_text_of_another_encoding(tmp_path):
    """The option of the message is what reads the file."""
    (tmp_path / "a.txt").write_bytes(
        "\n".join(f"Stra\u00dfe {i} \u2013 M\u00fcnchen" for i in range(99)).encode("cp1252")
    )
    with pytest.raises(ConfigError, match=r"line 1 has the byte 0xdf, which is not utf-8: .* data.encoding=cp1252"):
        ready(TextData(str(tmp_path / "a.txt"), batch_size=16))
    data = ready(TextData(str(tmp_path / "a.txt"), encoding="cp1252", batch_size=16))
    assert {"Stra\u00dfe", "\u2013", "M\u00fcnchen"} <= set(data.vocabulary.names)


def test_train_a_model_on_a_text(cli, tmp_path):
    """One command; samples of the trained model are sentences of its vocabulary."""
    make(tmp_path)
    code, _out, error, run = cli(
        "data=text", "data.path=a.txt", "data.batch_size=16", "trainer.max_epochs=1", "logger=csv"
    )
    assert code == 0, error
    summary = json.loads((run / "summary.json").read_text())
    assert np.isfinite(summary["test"]["elbo"])
    code, _out, error, folder = cli("task=sample", f"run={run}", "num=5")
    assert code == 0, error
    lines = (folder / "samples.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    names = vocabulary_of(vaezoo.load(run).data_description).names
    assert names == ready(make(tmp_path)).vocabulary.names
    assert {piece for line in lines for piece in tokenize(line.replace("<unk>", " "), "word")} <= set(names)


@pytest.mark.parametrize("name", ["text", "topics"])
def test_config_has_the_defaults_of_the_class(name):
    node = config("data", f"data={name}", *["data.path=a.txt"] * (name == "text"))
    kind = {"text": TextData, "topics": Topics}[name]
    assert node.pop("_target_") == f"vaezoo.data.{kind.__name__}"
    data, default = kind(**node), kind(path="a.txt" if name == "text" else "", batch_size=64, batches_per_step=8)
    assert node.pop("encoding", "utf-8") == default.file_encoding
    node["known_shape"] = node.pop("shape")  # to ask for the shape would read the data
    for option in node:
        assert getattr(data, option) == getattr(default, option), option


def test_topics_are_sentences():
    """Sentences of Python's help; their number may change with the version."""
    data = ready(Topics())
    sentences = data.read_text().lines
    assert 1500 <= len(sentences) <= 2500
    assert len(set(sentences)) == len(sentences)
    assert all(4 <= len(sentence.split()) <= 30 for sentence in sentences)
    assert all(sentence[0].isupper() and sentence[-1] in ".!?" for sentence in sentences)
    assert "Assignment of an object to a single target is recursively defined as follows." in sentences
    assert not any(">>>" in sentence or " = " in sentence for sentence in sentences)
    assert 1000 <= len(data.vocabulary) <= 4000
    assert data.report()["Python"].startswith("3.")
    assert len(data.report()["sentences' hash"]) == 64
    assert "debugger" in data.class_names
    assert len(data.class_names) == 5
    lines = data.read_text()
    assert (
        lines.classes[sentences.index("Assignment of an object to a single target is recursively defined as follows.")]
        == "other"
    )
    assert sum(map(len, data.rows.values())) == sum(data.report()["classes"].values())
    class_of = dict(zip(sentences, lines.classes, strict=True))
    for split, name in zip(splits_of(data), ("train", "val", "test"), strict=True):
        assert [data.class_names[y] for y in split.y] == [class_of[text] for text in data.keys(name)["text"]]


def test_counts_of_words(tmp_path):
    """Each line becomes the counts that the test finds by itself; punctuation and unknown words are not counted."""
    data = ready(make(tmp_path, features="counts", vocabulary_size=8, lower_case=True))
    assert (data.data_kind, data.shape) == ("count", (6,))
    names = data.entry_names
    assert len(names) == 6
    assert all(any(map(str.isalnum, name)) for name in names)
    lines = [line.lower() for line in SENTENCES]
    for split, name in zip(splits_of(data), ("train", "val", "test"), strict=True):
        for x, line in zip(split.x, data.keys(name)["text"], strict=True):
            pieces = tokenize(line, "word", lower_case=True)
            assert x.tolist() == [pieces.count(word) for word in names]
    train = Counter(p for line in data.keys("train")["text"] for p in tokenize(line, "word", True) if p[0].isalnum())
    assert [train[name] for name in names] == sorted(train.values(), reverse=True)[:6]
    assert len(lines) == sum(len(split.x) for split in splits_of(data))


def test_counts_are_those_of_tokens_in_any_order(tmp_path):
    """New texts are prepared as those of the training; tokens and counts are not taken for each other."""
    data, tokens = (ready(make(tmp_path, features=features)) for features in ("counts", "tokens"))
    x = prepare_texts(["the cat sat", "sat the cat", "the the zebra!"], data.describe())
    assert torch.equal(x[0], x[1])
    assert int(x[0].sum()) == 3
    assert int(x[2].sum()) == 2
    assert torch.equal(data.encode_line("the cat sat"), x[0])
    assert data.decode_tokens(x[2]) == "the 2"
    assert "features" not in tokens.describe()
    assert data.encoding(data.describe()) != tokens.encoding(tokens.describe())
    (file,) = data.save_examples(x, tmp_path / "samples")
    rows = list(csv.DictReader(file.open()))
    assert rows[2]["the"] == "2"
    assert sum(int(value) for value in rows[2].values()) == 2
    with pytest.raises(ConfigError, match=r"data.features=counts cuts no line: leave out data.max_tokens"):
        make(tmp_path, features="counts", max_tokens=5)
    with pytest.raises(ConfigError, match=r"data.features=count is unknown"):
        make(tmp_path, features="count")


def test_a_topic_model_of_sentences(cli, tmp_path):
    """It trains on counts of words, its topics are written, and it takes new texts."""
    lines = [f"{'cat dog cow' if i % 2 else 'car bus van'} {['one', 'two'][i % 4 // 2]} number{i}" for i in range(150)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "new.txt").write_text("dog dog cat\nbus zebra\n")
    words = ["data.features=counts", "data.vocabulary_size=10", "model=prod_lda", "model.num_topics=2"]
    quiet = ["trainer.max_epochs=15", "logger=none", "callbacks.images=null", "optimizer.lr=5e-2", "data.batch_size=16"]
    code, _, err, run = cli("data=text", "data.path=a.txt", *words, *quiet, "model.encoder.hidden=[16]")
    assert code == 0, err
    code, _, err, folder = cli("task=sample", f"run={run}", "num=3")
    assert code == 0, err
    topics = [set(line.split(": ")[1].split(", ")[:3]) for line in (folder / "topics.txt").read_text().splitlines()]
    assert sorted(map(sorted, topics)) == [["bus", "car", "van"], ["cat", "cow", "dog"]]
    header = (folder / "samples.csv").read_text().splitlines()[0]
    assert set(header.split(",")) == {"cat", "dog", "cow", "car", "bus", "van", "one", "two"}
    code, _, err, folder = cli("task=encode", f"run={run}", "data=text", "data.path=new.txt")
    assert code == 0, err
    assert len((folder / "codes.csv").read_text().splitlines()) == 3
