"""More texts of the same kinds, written after the rules of the filters: no rule was changed for them."""

from __future__ import annotations

from ift_training.data.quality.calibration.scenes import Scene, scene

FRESH_SCENES: tuple[Scene, ...] = tuple(scene(text) for text in (
    """a pottery in Ansel
    Potter Mina Aalto fires her bowls twice in a kiln from 1962. She mixes the glaze from ash and clay of the region. A batch of 85 bowls fills the kiln. On Sundays she teaches a class for eight beginners.
    Mina Aalto fires batches of 85 bowls in a kiln from 1962 and teaches beginners on Sundays.
    What does Mina Aalto mix the glaze from?
    She mixes the glaze from ash and clay of the region.
    How many bowls fill the kiln?
    A batch of 85 bowls fills the kiln.""",
    """the canal locks
    The canal between Berwin and Toll has 29 locks on 40 kilometres. Most of them are still opened by hand. Lock keeper Henk Visser lives beside the highest one. Boats longer than 38 metres cannot pass.
    The canal between Berwin and Toll has 29 locks, most of them opened by hand, and takes boats of up to 38 metres.
    Where does Henk Visser live?
    Lock keeper Henk Visser lives beside the highest lock.
    Which boats cannot pass the canal?
    Boats longer than 38 metres cannot pass.""",
    """a comet
    Amateur astronomer Rosa Quint discovered a comet in the night of 12 March. It will come closest to the sun in November. The comet needs about 5,800 years for one orbit. It cannot be seen without a telescope yet.
    Rosa Quint discovered a comet that will come closest to the sun in November and needs 5,800 years for an orbit.
    Who discovered the comet?
    Amateur astronomer Rosa Quint discovered the comet.
    How long does the comet need for one orbit?
    The comet needs about 5,800 years for one orbit.""",
    """a village shop
    When the last shop of Oberau closed, 73 families founded a cooperative. Each of them paid 150 francs. Manager Theres Wyss orders milk from a farm across the street. The new shop is open on six days a week.
    After Oberau's last shop closed, 73 families paid 150 francs each for a new one that Theres Wyss manages.
    How much did each family pay?
    Each of the 73 families paid 150 francs.
    Where does Theres Wyss order milk?
    Manager Theres Wyss orders milk from a farm across the street.""",
    """the moor of Grenn
    The moor of Grenn was drained in the 1950s and is wet again today. Workers closed 47 ditches with wood and peat. Biologist Karim Benali counted 19 kinds of dragonflies last year. Walkers must not leave the wooden path.
    The drained moor of Grenn is wet again since 47 ditches were closed, and Karim Benali counted 19 kinds of dragonflies.
    How many ditches did the workers close?
    Workers closed 47 ditches with wood and peat.
    What did Karim Benali count last year?
    Biologist Karim Benali counted 19 kinds of dragonflies last year.""",
    """a street piano
    A piano has stood under the arcades of Calle Verde since April. Anyone may play it between ten and eight. Piano tuner Ilse Roth comes every three weeks. Rain has damaged the piano two times.
    Anyone may play the piano under the arcades of Calle Verde, which Ilse Roth tunes every three weeks.
    How often does Ilse Roth come?
    Piano tuner Ilse Roth comes every three weeks.
    When may people play the piano?
    Anyone may play it between ten and eight.""",
    """the salt mine
    Tourists ride a small train into the salt mine of Hallach. The tunnel is 950 metres long and stays at 12 degrees. Guide Blerim Hoxha worked in the mine for 22 years. Salt is no longer dug there.
    Tourists ride 950 metres into Hallach's former salt mine with Blerim Hoxha, who worked there for 22 years.
    How long is the tunnel?
    The tunnel is 950 metres long and stays at 12 degrees.
    How long did Blerim Hoxha work in the mine?
    Guide Blerim Hoxha worked in the mine for 22 years.""",
    """a translation prize
    Translator Wanda Kos received the Lindner prize for a novel of 740 pages. She worked on it for almost five years. The jury praised the rhythm of her sentences. The prize is worth 20,000 euros and is given every second year.
    Wanda Kos received the Lindner prize of 20,000 euros for her translation of a novel of 740 pages.
    How many pages does the novel have?
    The novel has 740 pages.
    What did the jury praise?
    The jury praised the rhythm of her sentences.""",
    """storks on the roof
    A pair of storks built a nest on the town hall of Sela in 2011. The nest weighs about 400 kilos now. Caretaker Bruno Maric cleans the roof below it each spring. Three young storks left the nest last August.
    Storks have nested on Sela's town hall since 2011, and three young ones left the nest last August.
    How much does the nest weigh?
    The nest weighs about 400 kilos now.
    Who cleans the roof below the nest?
    Caretaker Bruno Maric cleans the roof below it each spring.""",
    """a cargo bicycle service
    Two sisters deliver parcels in Tavira with seven cargo bicycles. They carry up to 180 kilos on each ride. Joana Pires plans the routes at six in the morning. The service does not deliver furniture.
    Two sisters deliver parcels of up to 180 kilos in Tavira with seven cargo bicycles, but no furniture.
    How much can they carry on each ride?
    They carry up to 180 kilos on each ride.
    Who plans the routes?
    Joana Pires plans the routes at six in the morning.""",
    """the old observatory
    The observatory on Monte Greco was closed in 1998 for lack of money. A group of 31 teachers has rented it since last year. Physicist Aldo Neri repaired the dome with them. School classes may stay there for two nights.
    A group of 31 teachers has rented the observatory on Monte Greco, closed in 1998, and school classes may stay there.
    Why was the observatory closed?
    The observatory was closed in 1998 for lack of money.
    Who repaired the dome with the teachers?
    Physicist Aldo Neri repaired the dome with them.""",
    """a marathon in the rain
    The marathon of Brenna took place in heavy rain with 2,340 runners. Winner Meseret Abebe needed two hours and 29 minutes. Helpers gave out 9,000 cups of tea. The route was shorter than last year by no metre.
    In the rainy marathon of Brenna with 2,340 runners, Meseret Abebe won in two hours and 29 minutes.
    How many runners took part?
    2,340 runners took part in the marathon of Brenna.
    How many cups of tea did the helpers give out?
    Helpers gave out 9,000 cups of tea.""",
))  # fmt: skip

FRESH_PAIRS: tuple[tuple[str, str], ...] = (
    ("Explain why salt melts ice on a road.", "Salt dissolves in the thin film of water on the ice and lowers its freezing point, so the ice melts at temperatures at which pure water would freeze."),
    ("Give me five ideas for a birthday present for a gardener.", "- A pair of good secateurs\n- Seeds of old kinds of tomatoes\n- A rain gauge\n- Gloves of soft leather\n- A book about compost"),
    ("Write a short message that cancels a dentist's appointment.", "Good morning, I have to cancel my appointment on Tuesday at nine because I am ill. Please send me a new date. Thank you, Ralf Stein"),
    ("What is the purpose of a table of contents?", "A table of contents shows how a text is divided and on which page each part begins, so that readers find what they look for."),
    ("Write a Python function that counts the vowels of a text.", "def count_vowels(text):\n    return sum(letter in 'aeiou' for letter in text.lower())"),
    ("How can I tell whether an egg is still fresh?", "Lay the egg in a glass of water. A fresh egg stays at the bottom, an old one stands up or floats, because the air inside grows with time."),
    ("Write a four-line verse about a broken umbrella.", "It danced with the wind and it lost every time,\nits ribs pointing up at the sky.\nI carried it home like a small, solved crime,\nand neither of us was dry."),
    ("Name two differences between frogs and toads.", "Frogs have smooth, moist skin and long legs for jumping. Toads have dry, bumpy skin and walk more than they jump."),
    ("Explain what a password manager is good for.", "A password manager makes a long password for every account and keeps all of them encrypted, so that you have to remember only one."),
    ("Describe the job of a bee scout in two sentences.", "A scout flies out and looks for flowers or a place for a new nest. Back at the hive, it shows the others the way by a dance."),
    ("Suggest a title for a talk about saving water in hotels.", "Every drop a guest: how hotels can save water"),
    ("Why does a metal spoon feel colder than a wooden one?", "Both have the temperature of the room. Metal leads the warmth of the hand away faster, so it feels colder."),
    ("List three things that one should not put into a microwave oven.", "1. Metal bowls and forks\n2. Eggs in their shells\n3. Closed jars"),
    ("Is the whale a fish? Answer yes or no with a reason.", "No, because whales breathe air with lungs and feed their young with milk, so they are mammals."),
    ("Write a sentence of at most 12 words that invites people to a flea market.", "Come to our flea market on Saturday: treasures, cake and music!"),
    ("How do noise-cancelling headphones work?", "A microphone picks up the noise around, and the headphones play the same wave turned upside down, so that the two cancel each other."),
)  # fmt: skip
