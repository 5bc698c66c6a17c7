import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from unirl.prompts import NUMBERS, article, keywords, normalize_word, plural
from unirl.prompts.vocabulary import OBJECTS, many
from unirl.prompts.words import STOP_WORDS

TEXT = st.text(alphabet="abcdefghilnorstuvxyz0123 '.,-", max_size=40)
PLURALS = {
    **{"knife": "knives", "person": "people", "sheep": "sheep", "bus": "buses", "wine glass": "wine glasses"},
    **{"toothbrush": "toothbrushes", "sandwich": "sandwiches", "fox": "foxes", "strawberry": "strawberries"},
    **{"monkey": "monkeys", "cookie": "cookies", "tie": "ties", "horse": "horses", "vase": "vases"},
    **{"computer mouse": "computer mice", "tomato": "tomatoes", "tv": "tvs", "scarf": "scarves"},
    **{"calf": "calves", "die": "dice", "volcano": "volcanoes", "snowman": "snowmen"},
}
SAME = """
ache/aches alga/algae alibi/alibis alto/altos antenna/antennae/antennas appendix/appendices aquarium/aquaria/aquariums
avocado/avocados axe/axes bacterium/bacteria base/bases beanie/beanies bikini/bikinis brownie/brownies/BROWNIES
bus/buses/busses cactus/cacti/cactuses café/cafés calf/calves calorie/calories camera/cameras canoe/canoes
canvas/canvases cellphone/cellphones chateau/chateaux/chateaus cherry/cherries child/children chili/chilies/chilis
christmas/christmases church/churches class/classes cookie/cookies couch/couches crisis/crises criterion/criteria
cutie/cuties datum/data dish/dishes doggie/doggies dress/dresses echo/echoes elf/elves emoji/emojis emu/emus eye/eyes
fez/fezzes fireman/firemen firefly/fireflies fish/fishes flamingo/flamingos/flamingoes focus/foci/focuses
foodie/foodies foot/feet formula/formulae/formulas fungus/fungi gas/gases giraffe/giraffes glass/glasses glove/gloves
goose/geese grandchild/grandchildren guru/gurus half/halves handkerchief/handkerchiefs/handkerchieves
headache/headaches hero/heroes hippie/hippies hippopotamus/hippopotami/hippopotamuses hoodie/hoodies hoof/hooves/hoofs
horse/horses horseshoe/horseshoes house/houses igloo/igloos index/indices/indexes iris/irises key/keys kimono/kimonos
kiwi/kiwis knee/knees knife/knives lady/ladies larva/larvae leaf/leaves lens/lenses lie/lies loaf/loaves louse/lice
magpie/magpies mango/mangos/mangoes matrix/matrices meatloaf/meatloaves menu/menus mongoose/mongooses
mosquito/mosquitoes moustache/moustaches mouse/mice movie/movies niche/niches oasis/oases octopus/octopuses/octopi
olive/olives omen/omens opera/operas orange/oranges ox/oxen pancake/pancakes pass/passes peach/peaches
penny/pennies/pence penguin/penguins person/people/persons photo/photos piano/pianos pie/pies
plateau/plateaux/plateaus potato/potatoes prize/prizes process/processes quartz/quartzes quiz/quizzes radius/radii
rhinoceros/rhinoceroses roof/roofs/rooves safari/safaris samurai/samurais scarf/scarves/scarfs selfie/selfies series
sheep shelf/shelves shoe/shoes ski/skis smoothie/smoothies snowman/snowmen species specimen/specimens stimulus/stimuli
stomach/stomachs syllabus/syllabi/syllabuses taco/tacos taxi/taxis thermos/thermoses thief/thieves tie/ties toe/toes
tomato/tomatoes tooth/teeth torch/torches tsunami/tsunamis vertex/vertices volcano/volcanoes waltz/waltzes
watch/watches wife/wives wolf/wolves woman/women yeti/yetis zombie/zombies zoo/zoos zucchini/zucchinis
"""
"""Each word with its plurals. Those of one entry are the same word, and no two entries are."""
DIFFERENT = """
ache/each as/a axe/axis base/basis/bass bra/brass brown/brownie bus/buss/bush cloth/clothes deer/dear die/dye does/doe
food/foodie gas/ga glass/glad good/goods has/ha head/headache hero/heron is/i lens/len mean/means new/news odd/odds
one/on opera/opus orange/orang pancreas/pancreatic plus/plu prince/princess selfie/self short/shorts this/thi
tight/tights us/u volcano/volcanic was/wa yes/ye
"""
"""Words that some rule of plurals would take for each other."""


def test_plurals_and_their_keywords() -> None:
    assert {noun: plural(noun) for noun in PLURALS} == PLURALS
    assert [noun for noun in PLURALS if keywords(PLURALS[noun]) != keywords(noun)] == []


def test_singular_and_plural_are_the_same_word() -> None:
    entries = [entry.split("/") for entry in SAME.split()]
    assert [entry for entry in entries if len({normalize_word(word) for word in entry}) > 1] == []
    assert len({normalize_word(entry[0]) for entry in entries}) == len(entries)


def test_other_words_are_not() -> None:
    entries = [entry.split("/") for entry in DIFFERENT.split()]
    assert [entry for entry in entries if len({normalize_word(word) for word in entry}) < len(entry)] == []


def test_every_object_and_its_plural_have_the_same_keywords() -> None:
    assert [name for name in OBJECTS if not keywords(many(name)) == keywords(name) != []] == []


def test_misspelled_plurals_of_geneval_are_normalized() -> None:
    misspelled = {"benchs": "bench", "knifes": "knife", "persons": "person", "sheeps": "sheep"}
    assert [word for word, noun in misspelled.items() if normalize_word(word) != normalize_word(noun)] == []


def test_words_that_only_look_like_plurals_stay() -> None:
    words = ["glass", "bus", "tennis", "is", "this", "us", "gas", "lens", "canvas", "yes", "we"]
    assert [normalize_word(word) for word in words] == words


def test_different_objects_have_different_keywords() -> None:
    assert len({tuple(keywords(name)) for name in OBJECTS}) == len(OBJECTS)


def test_the_article_follows_the_sound() -> None:
    expected = {
        **{"apple": "an apple", "unicycle": "a unicycle", "ukulele": "a ukulele", "umbrella": "an umbrella"},
        **{"hourglass": "an hourglass", "horse": "a horse", "orange cup": "an orange cup"},
    }
    assert {phrase: article(phrase) for phrase in expected} == expected


def test_digits_and_number_words_are_the_same_up_to_twenty() -> None:
    assert [normalize_word(str(value)) for value in range(21)] == list(NUMBERS)
    assert [normalize_word(word) for word in NUMBERS] == list(NUMBERS)
    assert normalize_word("21") == "21"


def test_keywords_carry_meaning() -> None:
    assert keywords("The cup is left of the lamp") == ["cup", "left", "lamp"]
    assert keywords("none") == ["none"]
    assert keywords("zero cups on it") == ["zero", "cup", "on"]
    assert keywords("a pair of scissors") == keywords("Scissors")
    assert keywords("the dog's traffic-light") == ["dog", "traffic", "light"]
    assert keywords("") == keywords("There is a the.") == []


@given(TEXT)
def test_keywords_of_keywords_are_the_same(text: str) -> None:
    words = keywords(text)
    assert keywords(" ".join(words)) == words
    assert not set(words) & STOP_WORDS


def test_words_of_all_scripts() -> None:
    """Vowel signs belong to their letter, words of scripts without spaces are letters, and an emoji is a word."""
    assert keywords("हाथी") == ["हाथी"] != keywords("हाथ")
    assert keywords("красные круги") == ["красные", "круги"]
    assert keywords("一只红色的猫") == list("一只红色的猫")
    assert keywords("ネコが２匹") == ["ネ", "コ", "が", "two", "匹"]
    assert "".join(keywords("แมวสีแดง")) == "แมวสีแดง"
    assert keywords("a 🐱, ❤\ufe0f 3\ufe0f\u20e3") == ["🐱", "❤", "three"]


@given(st.text(max_size=20))
def test_keywords_of_any_text_are_stable(text: str) -> None:
    words = keywords(text)
    assert keywords(" ".join(words)) == words == keywords(unicodedata.normalize("NFD", text))


@given(TEXT)
def test_case_and_surrounding_punctuation_do_not_matter(text: str) -> None:
    assert keywords(f"  ({text.upper()}!) ") == keywords(text)
