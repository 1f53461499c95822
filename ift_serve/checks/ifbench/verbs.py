"""Common English verbs in all their forms: what may begin a response that is to begin with a verb."""

from __future__ import annotations

import functools
import re

from ift_serve.checks.words import listed

_REGULAR = listed(
    """accept achieve acknowledge act adapt add address adjust admire admit adopt advise agree aim allow analyze
    announce answer apologize appear apply appreciate approach argue arrange ask assess assign assist assume attend
    avoid bake balance base behave believe boost borrow brush calculate call capture care carry cause
    celebrate challenge change charge check cherish clarify classify clean click climb close collect combine comment
    compare complete compose compute concentrate conclude conduct confirm connect consider construct contact contain
    continue contrast contribute convert convince cook cooperate copy count cover craft create critique cultivate
    dance dare decide declare dedicate define delete deliver delve demonstrate deny depend derive describe design
    determine develop devise dine direct discover discuss display dive divide document download dream dress drop
    earn edit educate elaborate embark embrace emerge emphasize employ empower enable encounter encourage end engage
    enhance enjoy ensure enter envision establish estimate evaluate evolve examine execute exist expand expect
    experience experiment explain exploit explore express extend face facilitate fail fasten fetch figure file fill
    filter finish fix focus follow form formulate foster fry gain gather generate grab greet guide handle happen
    harness head help hire hope identify ignite illuminate illustrate imagine impact implement imply improve include
    incorporate increase indicate infer influence inform initiate innovate inspect inspire install integrate
    interpret introduce invent invest investigate invite involve iterate join journey jump justify kick kill label
    laugh launch learn leverage lift like limit link list listen live load locate look love maintain manage map mark
    master match matter maximize measure meditate mention merge mix model modify monitor motivate move multiply name
    narrate navigate need negotiate note notice nurture observe obtain offer open operate optimize order organize
    outline overlook own pack paint participate pass perform permit pick picture place plan plant play please plot
    plunge point ponder practice praise predict prefer prepare present preserve press prevent print prioritize
    proceed process produce program promise promote propose protect prove provide publish pull push qualify question
    rank reach realize reason recall receive recognize recommend reconsider record reduce refer refine reflect regard
    register relate relax release rely remain remember remind remove rename repair repeat rephrase replace reply
    report represent request require research resolve respect respond rest restore result retain return reveal
    review revise reward sail sample save scale schedule scribble search seem select
    serve share shift ship showcase sign simplify simulate sketch smile solve sort specify start state stay step stop
    store strengthen stretch structure study submit subtract succeed suggest summarize supply support
    suppose surround survey switch tackle tailor talk taste test thank tie touch trace track trade train transform
    translate transport travel treat trust try turn type uncover unite unleash unlock unpack unravel unveil update
    upgrade use utilize validate value verify view visit visualize vote wait walk wander want warn wash watch
    welcome wish witness wonder work worry wrap yield zoom"""
)
_IRREGULAR = listed(
    """be is are am was were been being do does did done doing have has had having go goes went gone going get gets got
    gotten getting make makes made making take takes took taken taking give gives gave given giving come comes came
    coming see sees saw seen seeing know knows knew known knowing think thinks thought thinking say says said saying
    tell tells told telling find finds found finding keep keeps kept keeping let lets letting put puts putting set sets
    setting begin begins began begun beginning bring brings brought bringing build builds built building buy buys bought
    buying choose chooses chose chosen choosing cut cuts cutting draw draws drew drawn drawing drink drinks drank
    drinking drive drives drove driven driving eat eats ate eaten eating fall falls fell fallen falling feel feels felt
    feeling fight fights fought fighting fly flies flew flown flying forget forgets forgot forgotten forgetting forgive
    forgives forgave grow grows grew grown growing hear hears heard hearing hide hides hid hidden hiding hold holds held
    holding lead leads led leading leave leaves left leaving lend lends lent lie lies lay lain lying lose loses lost
    losing mean means meant meaning meet meets met meeting pay pays paid paying prove read reads reading ride rides rode
    riding rise rises rose risen rising run runs ran running seek seeks sought seeking sell sells sold selling send
    sends sent sending show shows showed shown showing sing sings sang sung singing sit sits sat sitting sleep sleeps
    slept sleeping speak speaks spoke spoken speaking spend spends spent spending stand stands stood standing steal
    stick strike strive strives strove striving swim swims swam swimming teach teaches taught teaching throw throws
    threw thrown throwing understand understands understood understanding wake wakes woke waking wear wears wore worn
    wearing weave weaves wove weaving win wins won winning write writes wrote written writing rewrite rewrites rewrote
    rewritten rewriting become becomes became becoming break breaks broke broken breaking catch catches caught catching
    deal deals dealt dealing dig digs dug digging shut shine shines shone shining undertake overcome step behold"""
)


def is_verb(word: str) -> bool:
    """Whether a word is a form of one of the verbs, in any case."""
    return word.lower() in _forms()


@functools.cache
def _forms() -> frozenset[str]:
    forms = set(_IRREGULAR)
    for verb in _REGULAR:
        forms |= {verb, _with_s(verb), _joined(verb, "ed"), _joined(verb, "ing")}
        # Spelling with an s is as common.
        if verb.endswith("ize"):
            forms |= {verb[:-3] + "ise" + ending for ending in ("", "s", "d")} | {verb[:-3] + "ising"}
    return frozenset(forms)


def _with_s(verb: str) -> str:
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y\Z", verb) else verb + "s"


def _joined(verb: str, ending: str) -> str:
    """The past or the participle by the rules of spelling."""
    if verb.endswith("ie") and ending == "ing":
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + ending
    if re.search(r"[^aeiou]y\Z", verb) and ending == "ed":
        return verb[:-1] + "ied"
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgklmnprt]", verb):
        return verb + verb[-1] + ending
    return verb + ending
