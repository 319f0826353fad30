#!/usr/bin/env python3
"""Generate ``grammar.jsonl``: minimal pairs of English grammar.

Each row holds one grammatical sentence ("good") and one ungrammatical sentence
("bad") that differ in a single point of grammar.  A language model gets the row
right when the good sentence has the higher total log-likelihood.

In a template, ``[x|y]`` stands for x in the good sentence and for y in the bad
one; ``{name}`` and ``{person}`` are filled from the word lists.
The choice of words depends only on ``SEED`` (through SHA-256), so the output is
the same, byte for byte, on every platform and Python version.

Usage: python make_grammar.py [OUTPUT]      (default: grammar.jsonl beside this file)
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SEED = "grammar-1"
PER_PHENOMENON = 16

NAMES = (
    "Alice", "Anna", "Daniel", "David", "Emma", "Henry", "Julia", "Laura",
    "Lucy", "Maria", "Mark", "Paul", "Peter", "Sarah", "Simon", "Tom",
)  # fmt: skip
PERSONS = (
    "baker", "dentist", "doctor", "driver", "farmer", "gardener", "lawyer", "librarian",
    "nurse", "painter", "plumber", "sailor", "singer", "student", "tailor", "teacher",
)  # fmt: skip

# (singular verb, plural verb, rest); verbs whose plural equals their past are left out.
PREDICATES = (
    ("lives", "live", "near the old station"),
    ("works", "work", "on most Saturdays"),
    ("walks", "walk", "to the market every morning"),
    ("has", "have", "a small garden"),
    ("is", "are", "waiting for the bus"),
    ("was", "were", "late for the meeting"),
    ("speaks", "speak", "three languages"),
    ("drinks", "drink", "tea in the afternoon"),
    ("knows", "know", "the way home"),
    ("wants", "want", "a longer holiday"),
    ("plays", "play", "the piano very well"),
    ("sleeps", "sleep", "badly during the summer"),
    ("needs", "need", "more time to rest"),
    ("buys", "buy", "vegetables at the market"),
    ("does", "do", "not like loud music"),
    ("seems", "seem", "happy with the result"),
)

# (head noun, preposition, second noun, singular verb, plural verb, rest)
ATTRACTORS = (
    ("key", "to", "cabinet", "was", "were", "missing this morning"),
    ("label", "on", "bottle", "is", "are", "hard to read"),
    ("picture", "of", "horse", "hangs", "hang", "in the hall"),
    ("path", "behind", "house", "leads", "lead", "down to the sea"),
    ("letter", "from", "lawyer", "has", "have", "not arrived yet"),
    ("boat", "near", "island", "looks", "look", "very old"),
    ("door", "of", "office", "opens", "open", "from the inside"),
    ("report", "about", "accident", "contains", "contain", "many mistakes"),
    ("tree", "beside", "river", "sways", "sway", "in the wind"),
    ("lamp", "above", "desk", "needs", "need", "to be cleaned"),
    ("book", "about", "king", "was", "were", "written long ago"),
    ("guard", "next to", "prisoner", "speaks", "speak", "very little English"),
    ("song", "about", "soldier", "makes", "make", "people cry"),
    ("window", "above", "shop", "does", "do", "not close properly"),
    ("gift", "for", "child", "is", "are", "under the bed"),
    ("farmer", "behind", "cow", "seems", "seem", "to be tired"),
)

# (subject, right reflexive, wrong reflexive)
REFLEXIVES = (
    ("The king", "himself", "herself"),
    ("My uncle", "himself", "herself"),
    ("The boy", "himself", "themselves"),
    ("The man with the two dogs", "himself", "themselves"),
    ("The queen", "herself", "himself"),
    ("My grandmother", "herself", "himself"),
    ("The girl", "herself", "themselves"),
    ("The woman behind the boys", "herself", "themselves"),
    ("The brothers", "themselves", "himself"),
    ("The men from the office", "themselves", "himself"),
    ("The sisters", "themselves", "herself"),
    ("The women near the door", "themselves", "herself"),
    ("We", "ourselves", "themselves"),
    ("My sister and I", "ourselves", "herself"),
    ("I", "myself", "himself"),
    ("They", "themselves", "ourselves"),
)
REFLEXIVE_FRAMES = (
    "blamed {} for the mistake", "saw {} in the mirror", "hurt {} during the game",
    "introduced {} to the new teacher", "prepared {} for the long winter",
    "taught {} to play chess", "asked {} the same question", "described {} in the letter",
    "dressed {} in warm clothes", "locked {} out of the house", "wrapped {} in a blanket",
    "burned {} on the stove", "forced {} to stay awake", "made {} some breakfast",
    "found {} in a strange town", "covered {} with sand",
)  # fmt: skip

# (determiner, True if it takes a plural noun)
DETERMINERS = (
    ("this", False), ("these", True), ("that", False), ("those", True),
    ("every", False), ("several", True), ("each", False), ("both", True),
    ("another", False), ("many", True), ("one", False), ("two", True),
    ("this", False), ("these", True), ("that", False), ("those", True),
)  # fmt: skip
# (verb, adjective or "", singular noun, plural noun, rest)
NOUN_FRAMES = (
    ("sold", "old", "chair", "chairs", "last week"),
    ("cleaned", "dirty", "window", "windows", "before lunch"),
    ("borrowed", "long", "book", "books", "from the library"),
    ("dropped", "heavy", "box", "boxes", "on the stairs"),
    ("followed", "quiet", "child", "children", "in the park"),
    ("sharpened", "kitchen", "knife", "knives", "on Sunday"),
    ("photographed", "young", "woman", "women", "at the wedding"),
    ("painted", "wooden", "shelf", "shelves", "in the garage"),
    ("caught", "", "mouse", "mice", "in the kitchen"),
    ("repaired", "broken", "lamp", "lamps", "with great care"),
    ("visited", "small", "city", "cities", "during the trip"),
    ("washed", "", "shirt", "shirts", "by hand"),
    ("hid", "gold", "coin", "coins", "under the floor"),
    ("picked", "red", "apple", "apples", "from the tree"),
    ("solved", "difficult", "problem", "problems", "in class"),
    ("bought", "cheap", "ticket", "tickets", "at the station"),
)

IRREGULAR = (
    "{name} has [written|wrote] a long letter to the bank.",
    "The window was [broken|broke] by the storm.",
    "The children have [eaten|ate] all the cake.",
    "The {person} had already [spoken|spoke] to the police.",
    "Somebody has [stolen|stole] the money.",
    "{name} has [chosen|chose] a blue dress for the party.",
    "Our neighbors have [gone|went] to Spain for a week.",
    "The lake has [frozen|froze] for the first time in years.",
    "{name} [drank|drunk] a glass of cold water.",
    "The {person} [saw|seen] a fox in the garden.",
    "{name} [took|taken] the last train home.",
    "The choir [sang|sung] two old songs.",
    "My aunt [gave|given] us a basket of apples.",
    "The lesson [began|begun] at nine in the morning.",
    "{name} [drove|driven] to the hospital in the rain.",
    "The two boys [threw|thrown] stones into the pond.",
)

NPI = (
    "[Nobody|Everybody] in the village has ever seen a wolf.",
    "[None|Most] of the guests have ever eaten oysters.",
    "[Neither|Each] of the brothers has ever driven a truck.",
    "[Few|Many] people in the town have ever met the queen.",
    "[No|Some] doctor in this hospital has ever made such a mistake.",
    "{name} has [never|often] helped in the kitchen at all.",
    "The {person} has [not|now] opened the letter yet.",
    "{name} [hardly|nearly] slept at all last night.",
    "[No|The] {person} who knew [the|no] neighbors has ever been so rude.",
    "[No|The] town with [a|no] river has ever looked so dry.",
    "[No|The] house with [a|no] garden has ever been sold so quickly.",
    "[No|The] student with [a|no] dictionary has ever failed this test.",
    "[No|The] shop that sells [fresh|no] bread has ever closed so early.",
    "[No|The] cat with [long|no] hair has ever lived in this house.",
    "[No|The] man who wears [a|no] tie has ever worked in this factory.",
    "[No|The] singer with [a|no] microphone has ever sounded so loud.",
)

FILLER_GAP = (
    "{name} knows [what|that] the {person} carried to the market.",
    "{name} remembers [what|that] the {person} found on the beach.",
    "{name} saw [what|that] the {person} repaired yesterday.",
    "{name} guessed [what|that] the {person} put under the bed.",
    "{name} forgot [what|that] the {person} brought to the party.",
    "{name} discovered [who|that] the {person} blamed for the fire.",
    "{name} remembered [who|that] the {person} met on the train.",
    "{name} noticed [who|that] the {person} invited to the wedding.",
    "{name} knows [that|what] the {person} sold eggs at the fair.",
    "{name} remembers [that|what] the {person} lost a ring in the snow.",
    "{name} saw [that|what] the {person} cleaned the bath on Friday.",
    "{name} guessed [that|what] the {person} kept a cat in the house.",
    "{name} forgot [that|what] the {person} planted roses behind the shop.",
    "{name} discovered [that|who] the {person} married a soldier in Spain.",
    "{name} heard [that|who] the {person} hired a cook for the summer.",
    "{name} noticed [that|who] the {person} kissed an actor after the show.",
)

ISLAND = (
    "What did {name} repair [after selling the boat|the boat after selling]?",
    "Who did {name} call [before visiting the {person}|the {person} before visiting]?",
    "What did {name} break [while cleaning the oven|the oven while cleaning]?",
    "Who did {name} meet [after leaving the {person}|the {person} after leaving]?",
    "Whose [hat did {name} borrow|did {name} borrow hat] yesterday?",
    "Which [bridge did the king build|did the king build bridge] first?",
    "Whose [dog did the {person} find|did the {person} find dog] in the park?",
    "How many [eggs did {name} break|did {name} break eggs] this morning?",
    "What did {name} eat [with|and] the rice?",
    "What did the {person} wear [with|and] the black shoes?",
    "What did {name} buy [besides|and] the bread?",
    "Who did the {person} invite [besides|and] the mayor?",
    "Which window did {name} [say that the boy|meet the boy who] broke?",
    "Which song did {name} [claim that the girl|know the girl who] wrote?",
    "What did {name} [believe that the man|see the man who] stole?",
    "Which house did {name} [think that the {person}|help the {person} who] bought?",
)

AUXILIARY = (
    "{name} did not [go|went] to school on Monday.",
    "The {person} did not [bring|brought] an umbrella.",
    "Did the children [see|saw] the fox in the garden?",
    "Why did {name} [leave|left] the party so early?",
    "{name} does not [have|has] a bicycle.",
    "Does the {person} [know|knows] the answer?",
    "My brother can [swim|swims] across the lake.",
    "{name} should [eat|eats] more vegetables.",
    "The {person} must [leave|to leave] before noon.",
    "{name} might [be|is] in the kitchen.",
    "The baby is [sleeping|sleep] in the next room.",
    "The workers have [been|being] here since six in the morning.",
    "The {person} has [finished|finish] the work.",
    "{name} [is not|not is] afraid of spiders.",
    "The house was [being|been] painted when we arrived.",
    "The {person} will [have|has] a busy week.",
)

QUANTIFIER = (
    "There was too [much|many] traffic on the bridge.",
    "{name} did not drink [much|many] water during the race.",
    "How [much|many] sugar does the {person} need?",
    "The {person} gave us [much|many] useful advice.",
    "We do not have [much|many] furniture in the new house.",
    "There is very [little|few] milk in the fridge.",
    "{name} had only a [little|few] money left.",
    "There was [less|fewer] snow in the valley this winter.",
    "There were too [many|much] people in the elevator.",
    "{name} did not make [many|much] mistakes during the test.",
    "How [many|much] stamps did the {person} buy?",
    "The {person} told us [many|much] strange stories.",
    "We did not see [many|much] birds in the forest.",
    "There are only a [few|little] apples in the bowl.",
    "{name} stayed only a [few|little] days in the city.",
    "[Many|Much] visitors came to the museum on Sunday.",
)

TENSE = (
    "{name} [visited|will visit] the dentist yesterday.",
    "The {person} [sold|will sell] the house last year.",
    "Two days ago {name} [found|will find] a purse in the street.",
    "Last night the wind [broke|will break] three windows.",
    "{name} [will paint|painted] the kitchen tomorrow.",
    "The {person} [will open|opened] a new shop next year.",
    "Two days from now {name} [will fly|flew] to Spain.",
    "Next month the {person} [will move|moved] to a bigger house.",
    "{name} [saw|has seen] the film two weeks ago.",
    "The {person} [bought|has bought] the car in 1998.",
    "Last summer {name} [learned|has learned] to ride a horse.",
    "Yesterday the {person} [lost|has lost] the keys.",
    "{name} [has lived|lives] in this house since 2005.",
    "The {person} [has worked|works] here since last March.",
    "{name} [has been|is] ill since Tuesday.",
    "The two families [have known|know] each other since the war.",
)

ARGUMENTS = (
    "{name} [dropped|fell] the plates on the floor.",
    "The {person} [raised|rose] the flag in the morning.",
    "The noise [scared|trembled] the birds.",
    "{name} [kept|stayed] the dog in the garden.",
    "The guests were [invited|arrived] by the queen.",
    "The old bridge was [destroyed|vanished] by the flood.",
    "The children were [taught|smiled] by the {person}.",
    "{name} was [helped|slept] by a kind stranger.",
    "The dogs [barked|destroyed] all night.",
    "{name} [waited|put] in the cold for an hour.",
    "The {person} [laughed|mentioned] very loudly.",
    "The moon [shone|brought] brightly over the lake.",
    "{name} [told|explained] me the rules of the game.",
    "The {person} [showed|described] us the way to the castle.",
    "{name} [gave|suggested] them some good ideas.",
    "The {person} [asked|said] the children a simple question.",
)

PRONOUN_CASE = (
    "The {person} helped [him|he] with the heavy bags.",
    "{name} invited [us|we] to the wedding.",
    "The {person} gave [me|I] a glass of water.",
    "{name} waited for [them|they] at the station.",
    "The dog followed [her|she] across the field.",
    "{name} sat between [them|they] at dinner.",
    "Nobody told [us|we] about the change.",
    "The {person} sent a letter to [him|he] last week.",
    "[He|Him] lives next to the {person}.",
    "After lunch [we|us] walked along the river.",
    "[They|Them] bought a boat from {name}.",
    "Yesterday [she|her] met {name} at the bank.",
    "[I|Me] never eat meat on Fridays.",
    "When it rained, [they|them] stayed at home.",
    "{name} thinks that [he|him] is too young to drive.",
    "The {person} hopes that [we|us] will come back soon.",
)

COMPARATIVE = (
    "{name} is [older|oldest] than the {person}.",
    "The river is [wider|widest] than the road.",
    "This winter was [colder|coldest] than the last one.",
    "My soup is [hotter|hottest] than your tea.",
    "{name} is the [tallest|taller] player in the whole school.",
    "This is the [smallest|smaller] of the ten rooms.",
    "Sunday was the [warmest|warmer] day of the whole year.",
    "The {person} told us the [funniest|funnier] story of all.",
    "{name} is as [strong|stronger] as the {person}.",
    "The new road is as [narrow|narrower] as the old one.",
    "A pony is not as [fast|faster] as a horse.",
    "The second test was as [easy|easier] as the first.",
    "The red coat is [more|most] expensive than the blue one.",
    "{name} is [more|most] careful than the {person}.",
    "This is the [most|more] beautiful garden in the world.",
    "The second film was [worse|bad] than the first.",
)

COMPLEMENT = (
    "{name} enjoys [swimming|to swim] in the lake.",
    "The {person} avoids [driving|to drive] at night.",
    "{name} misses [living|to live] near the sea.",
    "The {person} kept [asking|to ask] the same question.",
    "{name} denied [taking|to take] the money.",
    "The {person} suggested [eating|to eat] outside.",
    "{name} is tired of [waiting|to wait] for the bus.",
    "The {person} does not mind [working|to work] on Sundays.",
    "{name} decided [to buy|buying] a new bicycle.",
    "The {person} hopes [to win|winning] the race.",
    "{name} refused [to answer|answering] the question.",
    "The {person} promised [to call|calling] us tonight.",
    "{name} agreed [to sell|selling] the old car.",
    "The {person} offered [to carry|carrying] the boxes.",
    "{name} made the children [wash|to wash] their hands.",
    "The {person} let us [use|to use] the telephone.",
)


def shuffled(items: Sequence[T], salt: str) -> list[T]:
    """Return the items in an order that depends on SEED and the salt only."""

    def rank(i: int) -> bytes:
        return hashlib.sha256(f"{SEED}/{salt}/{i}".encode()).digest()

    return [items[i] for i in sorted(range(len(items)), key=rank)]


def split(template: str) -> tuple[str, str]:
    """Return the good and the bad reading of a template."""
    choice = re.compile(r"\[([^|\]]*)\|([^|\]]*)\]")
    return choice.sub(r"\1", template), choice.sub(r"\2", template)


def fill(templates: Sequence[str], salt: str) -> list[tuple[str, str]]:
    """Fill the slots of the templates and split each into (good, bad)."""
    names, persons = shuffled(NAMES, salt + "/name"), shuffled(PERSONS, salt + "/person")
    slots = zip(templates, names, persons, strict=True)
    return [split(text.replace("{name}", n).replace("{person}", p)) for text, n, p in slots]


def agreement() -> list[tuple[str, str]]:
    """Subject and verb side by side; every second subject is plural."""
    persons = shuffled(PERSONS, "agreement/person")
    predicates = shuffled(PREDICATES, "agreement/predicate")
    pairs = []
    for i, (person, (singular, plural, rest)) in enumerate(zip(persons, predicates, strict=True)):
        if i % 2:
            pairs.append(split(f"The {person}s [{plural}|{singular}] {rest}."))
        else:
            pairs.append(split(f"The {person} [{singular}|{plural}] {rest}."))
    return pairs


def attractor() -> list[tuple[str, str]]:
    """A noun of the other number stands between the subject and its verb."""
    pairs = []
    for i, (head, link, other, singular, plural, rest) in enumerate(shuffled(ATTRACTORS, "attractor")):
        heads = head + "s"
        others = {"child": "children"}.get(other, other + "s")
        if i % 2:
            pairs.append(split(f"The {heads} {link} the {other} [{plural}|{singular}] {rest}."))
        else:
            pairs.append(split(f"The {head} {link} the {others} [{singular}|{plural}] {rest}."))
    return pairs


def reflexive() -> list[tuple[str, str]]:
    """The reflexive pronoun agrees with the subject of its clause."""
    frames = shuffled(REFLEXIVE_FRAMES, "reflexive")
    return [
        split(f"{subject} {frame.format(f'[{right}|{wrong}]')}.")
        for (subject, right, wrong), frame in zip(REFLEXIVES, frames, strict=True)
    ]


def determiner() -> list[tuple[str, str]]:
    """The noun has the number that its determiner asks for."""
    names = shuffled(NAMES, "determiner/name")
    frames = shuffled(NOUN_FRAMES, "determiner/noun")
    pairs = []
    for name, (word, is_plural), (verb, adjective, one, many, rest) in zip(names, DETERMINERS, frames, strict=True):
        phrase = f"{word} {adjective}".strip()
        right, wrong = (many, one) if is_plural else (one, many)
        pairs.append(split(f"{name} {verb} {phrase} [{right}|{wrong}] {rest}."))
    return pairs


PHENOMENA: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "subject_verb_agreement": agreement,
    "agreement_attractor": attractor,
    "reflexive_agreement": reflexive,
    "determiner_noun_agreement": determiner,
    "irregular_forms": lambda: fill(IRREGULAR, "irregular"),
    "npi_licensing": lambda: fill(NPI, "npi"),
    "filler_gap": lambda: fill(FILLER_GAP, "filler_gap"),
    "island": lambda: fill(ISLAND, "island"),
    "auxiliary_form": lambda: fill(AUXILIARY, "auxiliary"),
    "quantifier": lambda: fill(QUANTIFIER, "quantifier"),
    "tense_adverb": lambda: fill(TENSE, "tense"),
    "argument_structure": lambda: fill(ARGUMENTS, "arguments"),
    "pronoun_case": lambda: fill(PRONOUN_CASE, "pronoun_case"),
    "comparative": lambda: fill(COMPARATIVE, "comparative"),
    "verb_complement": lambda: fill(COMPLEMENT, "complement"),
}


def make_rows() -> list[dict[str, str]]:
    """Return all rows, in order of phenomenon."""
    rows: list[dict[str, str]] = []
    for phenomenon, make_pairs in PHENOMENA.items():
        pairs = make_pairs()
        if len(pairs) != PER_PHENOMENON:
            raise ValueError(f"{phenomenon}: {len(pairs)} pairs, not {PER_PHENOMENON}")
        for good, bad in pairs:
            row_id = f"grammar-{len(rows) + 1:03d}"
            rows.append({"id": row_id, "phenomenon": phenomenon, "good": good, "bad": bad})
    sentences = [row[key] for row in rows for key in ("good", "bad")]
    if len(set(sentences)) != len(sentences):
        raise ValueError("duplicate sentence")
    return rows


def main() -> None:
    """Write the rows as JSON lines."""
    default = Path(__file__).resolve().with_name("grammar.jsonl")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in make_rows()]
    path.write_bytes("".join(lines).encode("utf-8"))


if __name__ == "__main__":
    main()
