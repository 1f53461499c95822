"""Short passages about things that do not exist, each with a summary and questions: written for this sample."""

from __future__ import annotations

from typing import NamedTuple


class Scene(NamedTuple):
    """A passage of facts. summary: of all of it. asked: questions with their answers."""

    title: str
    passage: str
    summary: str
    asked: tuple[tuple[str, str], ...]


def scene(text: str) -> Scene:
    """Of blocks of lines: title, passage, summary, then questions and answers in turns."""
    title, passage, summary, *rest = (line.strip() for line in text.strip().splitlines())
    return Scene(title, passage, summary, tuple(zip(rest[0::2], rest[1::2], strict=True)))


SCENES: tuple[Scene, ...] = tuple(scene(text) for text in (
    """the library of Varnholt
    The town of Varnholt opened its first library in 1904. Ottilie Brandt gave 3,200 books from her own house. The reading room has 48 seats and looks over the river. Children may borrow six books at a time.
    Varnholt's library opened in 1904 with 3,200 books from Ottilie Brandt, and children may borrow six books at a time.
    Who gave books to the library?
    Ottilie Brandt gave 3,200 books from her own house.
    How many seats does the reading room have?
    The reading room has 48 seats.""",
    """the Kessel bridge
    The Kessel bridge was finished in 1931 after four years of work. It carries two lanes of traffic and a tram line across the valley. Engineer Ruben Maas designed its single stone arch. Lorries above 12 tonnes are not allowed on it.
    The Kessel bridge of 1931, designed by Ruben Maas, carries traffic and a tram, but no lorries above 12 tonnes.
    Who designed the arch of the bridge?
    Engineer Ruben Maas designed the single stone arch of the bridge.
    Which lorries are not allowed on the bridge?
    Lorries above 12 tonnes are not allowed on the bridge.""",
    """the bakery on Linden Square
    Mirela Novak opened a bakery on Linden Square in March. She bakes rye bread every morning at five. The shop sells about 140 loaves on a weekday. Her brother Danilo delivers bread to two schools.
    Mirela Novak's bakery on Linden Square sells about 140 loaves on a weekday, and her brother delivers to two schools.
    When does Mirela bake rye bread?
    Mirela bakes rye bread every morning at five.
    Who delivers bread to the schools?
    Her brother Danilo delivers bread to two schools.""",
    """the lighthouse of Skarrow
    The lighthouse of Skarrow stands 31 metres high on a cliff. Its lamp can be seen from a distance of 22 miles. Keeper Ansgar Holt lived there with his family until 1987. Today the light is controlled by a computer on the mainland.
    Skarrow's lighthouse is 31 metres high, had a keeper until 1987, and is now controlled by a computer.
    How high is the lighthouse?
    The lighthouse of Skarrow stands 31 metres high.
    What controls the light today?
    Today the light is controlled by a computer on the mainland.""",
    """a school garden
    Pupils of the Elmfield school planted a garden behind the gym. They grow beans, carrots and pumpkins in nine raised beds. Teacher Priya Raman meets the garden club on Tuesdays. Last autumn the club sold vegetables for 260 euros.
    Elmfield's pupils grow vegetables in nine raised beds with Priya Raman, and sold some for 260 euros last autumn.
    What do the pupils grow?
    The pupils grow beans, carrots and pumpkins in nine raised beds.
    On which day does the garden club meet?
    The garden club meets Priya Raman on Tuesdays.""",
    """the night train to Orvane
    The night train to Orvane leaves the capital at 21:40. It has 11 carriages, four of them with beds. Passengers reach the coast after nine hours. Breakfast is served in the dining car from six o'clock.
    The night train with 11 carriages leaves at 21:40 and reaches the coast after nine hours.
    How many carriages does the night train have?
    The night train has 11 carriages, four of them with beds.
    Where is breakfast served?
    Breakfast is served in the dining car from six o'clock.""",
    """the glacier survey
    Researchers measured the Tolm glacier every summer for 15 years. The ice lost 38 metres of thickness near its tongue. Team leader Ingrid Vale placed steel stakes in the ice. The nearby valley received more meltwater in July than in August.
    In 15 years the Tolm glacier lost 38 metres of thickness near its tongue, as Ingrid Vale's team measured.
    How much thickness did the ice lose?
    The ice lost 38 metres of thickness near its tongue.
    Who placed the steel stakes?
    Team leader Ingrid Vale placed steel stakes in the ice.""",
    """a clock museum
    The clock museum in Perrin shows 530 clocks in seven rooms. The oldest clock was made in 1612 by Joris Kemp. All clocks strike together at noon. Visitors are not allowed to touch the wooden cases.
    Perrin's clock museum shows 530 clocks, the oldest of 1612, and all of them strike together at noon.
    Who made the oldest clock?
    Joris Kemp made the oldest clock in 1612.
    When do all the clocks strike together?
    All clocks strike together at noon.""",
    """the ferry of Lake Onder
    A small ferry crosses Lake Onder 18 times a day. Captain Lucia Ferro has steered it since 2003. The boat takes 60 passengers and 25 bicycles. It does not sail when the wind is stronger than force seven.
    Lucia Ferro's ferry crosses Lake Onder 18 times a day with 60 passengers, unless the wind is too strong.
    How many bicycles can the boat take?
    The boat takes 60 passengers and 25 bicycles.
    Since when has Lucia Ferro steered the ferry?
    Captain Lucia Ferro has steered it since 2003.""",
    """a beekeeper's year
    Beekeeper Tomas Riel keeps 34 hives near the forest of Haddon. His bees produced 410 kilos of honey last year. He feeds them sugar water in winter. The lime honey is lighter than the forest honey.
    Tomas Riel's 34 hives near Haddon gave 410 kilos of honey last year.
    How much honey did the bees produce?
    The bees produced 410 kilos of honey last year.
    What does Tomas feed the bees in winter?
    Tomas feeds the bees sugar water in winter.""",
    """the theatre of Maren
    The theatre of Maren burned down in 1956 and was rebuilt within three years. Its stage is 14 metres wide. Director Salome Artz plans 27 performances for the next season. Tickets for students are free on Mondays.
    Maren's theatre was rebuilt after a fire in 1956, and Salome Artz plans 27 performances for the next season.
    How wide is the stage?
    The stage of the theatre is 14 metres wide.
    When are tickets free for students?
    Tickets for students are free on Mondays.""",
    """a mountain hut
    The Falken hut lies at 2,180 metres above the village of Tarn. It offers 72 beds in the summer months. Host Beat Amsler cooks barley soup for every guest. The hut is closed from November to May.
    The Falken hut at 2,180 metres offers 72 beds in summer and is closed from November to May.
    At what height does the hut lie?
    The Falken hut lies at 2,180 metres above the village of Tarn.
    What does Beat Amsler cook for every guest?
    Host Beat Amsler cooks barley soup for every guest.""",
    """the orchestra's new hall
    The Norden orchestra moved into a new hall in September. The hall has 1,250 seats and cost 84 million crowns. Conductor Hana Sato chose a symphony by a young composer for the opening. The walls are covered with cherry wood.
    The Norden orchestra's new hall with 1,250 seats cost 84 million crowns and opened with Hana Sato conducting.
    How much did the hall cost?
    The hall cost 84 million crowns.
    What are the walls covered with?
    The walls are covered with cherry wood.""",
    """a repair workshop
    Volunteers repair broken things in the old fire station every second Saturday. Last year they repaired 318 radios, lamps and toasters. Electrician Olu Bakare teaches beginners how to solder. A repair costs nothing, but visitors may leave a gift.
    Volunteers repaired 318 things last year in the old fire station, where Olu Bakare teaches soldering.
    What does Olu Bakare teach?
    Electrician Olu Bakare teaches beginners how to solder.
    How many things did the volunteers repair last year?
    Last year they repaired 318 radios, lamps and toasters.""",
    """the island of Brae
    The island of Brae has 96 inhabitants and one shop. A mail boat brings supplies on Wednesdays. Nurse Catriona Muir visits every house twice a month. The island produces more electricity than it uses.
    Brae has 96 inhabitants, a mail boat on Wednesdays, and more electricity than it uses.
    How many inhabitants does the island have?
    The island of Brae has 96 inhabitants.
    Who visits every house twice a month?
    Nurse Catriona Muir visits every house twice a month.""",
    """a football club
    The women's team of Rovina won the regional cup in May. Goalkeeper Selma Dahl stopped two penalties in the final. The club has 410 members and trains on three evenings a week. A new pitch with artificial grass will be ready in 2027.
    Rovina's women won the regional cup in May after Selma Dahl stopped two penalties.
    Who stopped two penalties in the final?
    Goalkeeper Selma Dahl stopped two penalties in the final.
    When will the new pitch be ready?
    The new pitch with artificial grass will be ready in 2027.""",
    """the paper mill
    The paper mill at Wend made writing paper from 1788 until 1974. Its wheel turned in the stream behind the house. Owner Casimir Lund employed 65 workers in the best years. The building is a hostel now and has 20 rooms.
    The paper mill at Wend worked until 1974 with up to 65 workers, and is a hostel with 20 rooms now.
    How many workers did Casimir Lund employ?
    Owner Casimir Lund employed 65 workers in the best years.
    What is the building now?
    The building is a hostel now and has 20 rooms.""",
    """a telescope on the hill
    Students built a telescope with a mirror of 40 centimetres. It stands in a dome on Calder hill. Astronomer Yann Le Goff opens the dome on clear Fridays. The telescope cannot be used when the moon is full.
    Students built a telescope with a mirror of 40 centimetres, which Yann Le Goff opens on clear Fridays.
    How large is the mirror?
    The mirror of the telescope measures 40 centimetres.
    When does Yann Le Goff open the dome?
    Astronomer Yann Le Goff opens the dome on clear Fridays.""",
    """the market of Sorrel Street
    The market of Sorrel Street takes place on Thursdays and Saturdays. It has 52 stalls, mostly of farmers from the valley. Cheese maker Nadia Petrov sells goat cheese with herbs. Dogs are not allowed between the stalls.
    The market of Sorrel Street has 52 stalls on Thursdays and Saturdays, among them Nadia Petrov's goat cheese.
    What does Nadia Petrov sell?
    Cheese maker Nadia Petrov sells goat cheese with herbs.
    On which days does the market take place?
    The market takes place on Thursdays and Saturdays.""",
    """a hospital's new wing
    The hospital of Aldery opened a new wing with 85 beds. Doctor Femi Okoro leads the department for children. The wing is heated with water from a depth of 700 metres. Parents may stay overnight with their children.
    Aldery's hospital has a new wing with 85 beds, heated from a depth of 700 metres, where Femi Okoro leads the children's department.
    Who leads the department for children?
    Doctor Femi Okoro leads the department for children.
    How is the wing heated?
    The wing is heated with water from a depth of 700 metres.""",
    """the vineyard at Montclar
    The vineyard at Montclar covers 16 hectares of a southern slope. Its owner, Elise Garnier, makes more white wine than red wine. Pickers need 12 days for the harvest. A hailstorm destroyed a third of the grapes in 2019.
    Elise Garnier's vineyard at Montclar covers 16 hectares and lost a third of its grapes to hail in 2019.
    How long do pickers need for the harvest?
    Pickers need 12 days for the harvest.
    What did the hailstorm destroy in 2019?
    The hailstorm destroyed a third of the grapes in 2019.""",
    """a bus without a driver
    The city of Helm tests a small bus that drives by itself. The bus carries eight passengers at 18 kilometres an hour. Technician Noor Haddad sits inside and can stop it at any time. The test ends in October.
    Helm tests a bus that drives itself with eight passengers, while Noor Haddad can stop it at any time.
    How fast does the bus go?
    The bus carries its passengers at 18 kilometres an hour.
    When does the test end?
    The test of the bus ends in October.""",
    """the weather station
    A weather station on Grimm peak has sent data since 1969. The lowest temperature there was minus 37 degrees. Observer Pavel Stein climbs up every ten days to clean the instruments. Fog covers the peak on 210 days of the year.
    The weather station on Grimm peak has sent data since 1969, and fog covers the peak on 210 days a year.
    What was the lowest temperature at the station?
    The lowest temperature at the station was minus 37 degrees.
    Why does Pavel Stein climb up every ten days?
    Observer Pavel Stein climbs up every ten days to clean the instruments.""",
    """a boat builder
    Boat builder Greta Lindqvist builds wooden boats in a barn near Ovik. A boat of five metres takes her 11 weeks. She uses larch for the planks and oak for the frame. She does not sell boats to dealers.
    Greta Lindqvist builds wooden boats near Ovik, a boat of five metres in 11 weeks.
    Which wood does she use for the planks?
    She uses larch for the planks.
    How long does a boat of five metres take?
    A boat of five metres takes her 11 weeks.""",
    """the choir of Saint Aldo
    The choir of Saint Aldo has 44 singers between 16 and 79 years. It rehearses on Wednesday evenings in the parish hall. Leader Matteo Riva writes some of the songs himself. The choir travelled to three countries last summer.
    The choir of Saint Aldo has 44 singers, is led by Matteo Riva, and travelled to three countries last summer.
    Where does the choir rehearse?
    The choir rehearses in the parish hall on Wednesday evenings.
    How many singers does the choir have?
    The choir of Saint Aldo has 44 singers.""",
    """a wolf in the valley
    A young wolf was seen in the Marrow valley in January. Ranger Dunja Kovac found its tracks near a stream. The wolf killed two sheep and avoided the fenced meadows. The village now keeps 13 dogs to protect the flocks.
    A young wolf killed two sheep in the Marrow valley, and the village keeps 13 dogs to protect the flocks.
    Who found the tracks of the wolf?
    Ranger Dunja Kovac found its tracks near a stream.
    How many dogs does the village keep now?
    The village now keeps 13 dogs to protect the flocks.""",
    """the swimming pool vote
    The people of Dorne voted about a new swimming pool in June. 58 percent accepted the plan. The pool will have six lanes and open in two years. Mayor Iris Feld promised that prices will not rise.
    Dorne accepted a new pool of six lanes with 58 percent, and Iris Feld promised stable prices.
    What share of the people accepted the plan?
    58 percent of the people accepted the plan.
    What did Iris Feld promise?
    Mayor Iris Feld promised that prices will not rise.""",
    """a radio play
    The radio play about the last postman lasts 54 minutes. Author Jonas Weil wrote it during a winter in Trieben. Nine actors recorded it in a former stable. The station repeats the play on Sunday evening.
    Jonas Weil's radio play about the last postman lasts 54 minutes and is repeated on Sunday evening.
    Where did the actors record the play?
    Nine actors recorded the play in a former stable.
    How long does the radio play last?
    The radio play about the last postman lasts 54 minutes.""",
    """the seed bank
    The seed bank of Karst keeps 9,400 kinds of seeds in a tunnel. The temperature there is minus 18 degrees. Botanist Leila Amini tests a sample of every kind after ten years. Farmers may order seeds for free in spring.
    Karst's seed bank keeps 9,400 kinds of seeds at minus 18 degrees, and farmers may order for free in spring.
    How cold is the tunnel?
    The temperature in the tunnel is minus 18 degrees.
    Who tests a sample of every kind?
    Botanist Leila Amini tests a sample of every kind after ten years.""",
    """a chess tournament
    The chess tournament in Pell lasted eight days and had 128 players. Fifteen-year-old Akira Mori won the final against a former champion. The longest game took 117 moves. The prize was a board carved from walnut.
    Akira Mori won the chess tournament in Pell against 127 other players and got a walnut board.
    How many moves did the longest game take?
    The longest game took 117 moves.
    What was the prize?
    The prize was a board carved from walnut.""",
    """the tram depot
    The old tram depot of Lisk was turned into 36 flats. Architect Vera Lomas kept the iron roof and the rails in the yard. Rents are lower than in the new district. A café in the former workshop opens at seven.
    Vera Lomas turned Lisk's tram depot into 36 flats and kept its iron roof.
    What did the architect keep?
    Architect Vera Lomas kept the iron roof and the rails in the yard.
    How many flats are in the old depot?
    The old tram depot was turned into 36 flats.""",
    """a cheese made in caves
    Shepherds around Aubrin ripen a blue cheese in caves for 90 days. The caves are damp and stay at nine degrees all year. Inspector Remy Caron visits them four times a year. A wheel of the cheese weighs about three kilos.
    Aubrin's blue cheese ripens in caves at nine degrees for 90 days under Remy Caron's inspection.
    How long does the cheese ripen?
    The blue cheese ripens in caves for 90 days.
    How much does a wheel weigh?
    A wheel of the cheese weighs about three kilos.""",
))  # fmt: skip
