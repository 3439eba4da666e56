"""A small English grammar that says every sentence twice: in plain order and in Yoda's.

Every sentence is a subject, a verb and what follows them; Yoda order puts the last first:

    She | must find | the old map.    →    The old map, she must find.
    Your sister | is | very brave.    →    Very brave, your sister is.
    We | will | cross the river.      →    Cross the river, we will.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

# Who acts, and the forms of "be" and "have" that agree.
_PRONOUNS = {
    "I": ("am", "was", "have"),
    "you": ("are", "were", "have"),
    "he": ("is", "was", "has"),
    "she": ("is", "was", "has"),
    "we": ("are", "were", "have"),
    "they": ("are", "were", "have"),
}
_NAMED = ("is", "was", "has")
_PEOPLE = (
    "baker", "brother", "captain", "doctor", "farmer", "friend", "gardener", "painter", "pilot",
    "sailor", "shepherd", "sister", "smith", "teacher", "traveller", "weaver",
)  # fmt: skip
_OWNERS = ("the", "my", "your", "our", "a")
_THINGS = (
    "apple", "basket", "blanket", "boat", "book", "bread", "bridge", "candle", "clock", "cup",
    "drum", "flag", "hammer", "kite", "lamp", "letter", "map", "mirror", "rope", "ship", "song",
    "stone", "sword", "wheel",
)  # fmt: skip
_LOOKS = (
    "big", "blue", "broken", "cold", "dusty", "golden", "green", "heavy", "hidden", "little",
    "long", "new", "old", "red", "silver", "small",
)  # fmt: skip
_MOODS = (
    "afraid", "angry", "brave", "calm", "clever", "happy", "honest", "hungry", "kind", "lonely",
    "proud", "quiet", "strong", "tired", "wise", "young",
)  # fmt: skip
_DEGREES = ("very", "quite", "rather", "always", "never", "still")
_MODALS = (
    "can", "could", "may", "must", "shall", "should", "will", "cannot", "must not", "will not",
)  # fmt: skip
# Do something: the bare form, and one form for "I found" and "I have found".
_ACTIONS = {
    "borrow": "borrowed", "bring": "brought", "buy": "bought", "carry": "carried",
    "clean": "cleaned",
    "drop": "dropped", "find": "found", "follow": "followed", "guard": "guarded", "hold": "held",
    "keep": "kept", "leave": "left", "lose": "lost", "mend": "mended", "need": "needed",
    "open": "opened", "paint": "painted", "sell": "sold", "tie": "tied", "want": "wanted",
}  # fmt: skip
_MOTIONS = (
    "climbed", "danced", "hurried", "jumped", "marched", "rested", "slept", "stood", "waited",
    "walked",
)  # fmt: skip
_WHERE = ("across", "behind", "beside", "near", "outside", "past", "through", "under")
_PLACES = (
    "forest", "garden", "gate", "harbour", "hill", "house", "lake", "market", "meadow", "mill",
    "mountain", "river", "road", "tower", "valley", "village",
)  # fmt: skip
_MURMUR = "Yes, hrrrm."


@dataclass(frozen=True)
class Sentence:
    """A statement in three parts, none of them capitalised for its place.

    Attributes:
        subject: who it is about: "my sister".
        verb: what stays with the subject in either order: "must not".
        rest: what Yoda says first: "open the old gate".
        murmur: whether Yoda adds "Yes, hrrrm."; he does wherever he says how somebody is.
    """

    subject: str
    verb: str
    rest: str
    murmur: bool = False

    @property
    def plain(self) -> str:
        """The sentence in plain order: "My sister must not open the old gate."."""
        return f"{capitalised(self.subject)} {self.verb} {self.rest}."

    @property
    def yoda(self) -> str:
        """The sentence in Yoda order: "Open the old gate, my sister must not."."""
        inverted = f"{capitalised(self.rest)}, {self.subject} {self.verb}."
        return f"{inverted} {_MURMUR}" if self.murmur else inverted


def sentences(seed: int) -> Iterator[Sentence]:
    """Endless sentences, a function of the seed alone, all distinct."""
    random = Random(seed)
    shapes = (_duty, _deed, _result, _state, _path)
    seen = set()
    while True:
        sentence = random.choice(shapes)(random)
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def pairs(seed: int, count: int) -> list[tuple[str, str]]:
    """The first `count` sentences of a seed, each as (plain order, Yoda order)."""
    return [(sentence.plain, sentence.yoda) for sentence in islice(sentences(seed), count)]


def words() -> list[str]:
    """Every word of plain sentences, once, sorted; none is capitalised but "I"."""
    agreeing = [form for forms in _PRONOUNS.values() for form in forms]
    small = [*_PRONOUNS, *agreeing, *_NAMED, *_OWNERS, "an", *_MODALS, *_DEGREES, *_WHERE]
    nouns_and_adjectives = [*_PEOPLE, *_THINGS, *_PLACES, *_LOOKS, *_MOODS]
    phrases = [*small, *nouns_and_adjectives, *_ACTIONS, *_ACTIONS.values(), *_MOTIONS]
    return sorted({word for phrase in phrases for word in phrase.split()})


def _duty(random: Random) -> Sentence:
    """You must | find the old map."""
    subject, _ = _subject(random)
    return Sentence(subject, random.choice(_MODALS), f"{_pick(random, _ACTIONS)} {_thing(random)}")


def _deed(random: Random) -> Sentence:
    """The sailor lost | a silver cup."""
    subject, _ = _subject(random)
    return Sentence(subject, _pick(random, _ACTIONS.values()), _thing(random))


def _result(random: Random) -> Sentence:
    """We have | mended your boat."""
    subject, (_, _, have) = _subject(random)
    return Sentence(subject, have, f"{_pick(random, _ACTIONS.values())} {_thing(random)}")


def _state(random: Random) -> Sentence:
    """My brother is | very proud."""
    subject, (present, past, _) = _subject(random)
    mood = f"{random.choice(_DEGREES)} {random.choice(_MOODS)}"
    return Sentence(subject, random.choice((present, past)), mood, murmur=True)


def _path(random: Random) -> Sentence:
    """They walked | through the green valley."""
    subject, _ = _subject(random)
    place = _noun_phrase(random, ("the", "our"), _LOOKS, _PLACES)
    return Sentence(subject, random.choice(_MOTIONS), f"{random.choice(_WHERE)} {place}")


def _subject(random: Random) -> tuple[str, tuple[str, str, str]]:
    """A subject, and its forms of "be" (present, past) and "have"."""
    if random.random() < 0.5:
        pronoun = _pick(random, _PRONOUNS)
        return pronoun, _PRONOUNS[pronoun]
    return _noun_phrase(random, _OWNERS, _MOODS, _PEOPLE), _NAMED


def _thing(random: Random) -> str:
    """Something to have or to handle: "your red kite"."""
    return _noun_phrase(random, _OWNERS, _LOOKS, _THINGS)


def _noun_phrase(
    random: Random, owners: Sequence[str], adjectives: Sequence[str], nouns: Sequence[str]
) -> str:
    """One of the nouns with its owner, half the time with an adjective; "an" before a vowel."""
    owner, noun = random.choice(owners), random.choice(nouns)
    described = f"{random.choice(adjectives)} {noun}" if random.random() < 0.5 else noun
    article = "an" if owner == "a" and described[0] in "aeiou" else owner
    return f"{article} {described}"


def _pick(random: Random, options: Iterable[str]) -> str:
    return random.choice([*options])


def capitalised(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[0].upper() + text[1:]
