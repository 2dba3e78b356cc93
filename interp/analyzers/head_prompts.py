"""The short texts that heads are profiled on when no others are given: prose, lists, talk, code and numbers, each with repeats."""

PROMPTS = (
    "Mara kept bees behind the old mill. Every spring Mara painted the hives blue, and every autumn the old mill smelled of honey. "
    "When the bees swarmed, the whole village came to the mill to watch, and Mara let the children hold the blue frames.",
    "To make the soup, wash two leeks, three carrots and one onion. Chop the leeks, the carrots and the onion. Fry the onion in "
    "butter, add the leeks and the carrots, then add water. Salt the water, wait twenty minutes, and serve the soup with bread.",
    "def area(width, height):\n    return width * height\n\ndef volume(width, height, depth):\n    return area(width, height) * depth\n\n"
    "print(volume(2, 3, 4))\nprint(area(2, 3))\n",
    '"Have you seen my keys?" asked Tom. "Which keys?" asked Ines. "The keys to the shed," said Tom. "No," said Ines, "but the shed '
    'is open, so you do not need the keys." Tom looked at the shed, and at Ines, and laughed.',
    "Monday: rain, 12 degrees. Tuesday: rain, 14 degrees. Wednesday: sun, 19 degrees. Thursday: sun, 21 degrees. Friday: clouds, 17 "
    "degrees. Saturday: rain, 13 degrees. Sunday: sun, 20 degrees. The warmest day was Thursday, with sun and 21 degrees.",
    "The river Alder rises in the northern hills and flows south for ninety miles. Near Fenwick the river Alder is joined by the river "
    "Leam; below Fenwick the two rivers are slow and wide. Barges once carried wool from Fenwick down the river to the sea.",
    "First she counted the red boxes, then the green boxes, then the white boxes. There were nine red boxes, six green boxes and four "
    "white boxes: nineteen boxes in all. She wrote nine, six and four on the list, and nineteen below the line.",
    "Dear Mr Okafor, thank you for your letter of 3 May. We have read your letter with care. The bridge you describe in your letter was "
    "closed in March, and the council will open the bridge again in June. Yours sincerely, the bridge office. To: Mr Okafor.",
    "A prime number has exactly two divisors. The number 7 is a prime number; the number 9 is not, because 3 divides 9. Is 11 a prime "
    "number? Yes: only 1 and 11 divide 11. Is 12 a prime number? No: 2, 3, 4 and 6 divide 12.",
    "The old captain told the story again. In the story there was a storm, and in the storm there was a light, and under the light there "
    "was a door. Nobody on the ship believed the old captain, but everybody on the ship listened to the story.",
    '{"name": "Lena", "age": 31, "city": "Graz"}\n{"name": "Omar", "age": 28, "city": "Graz"}\n{"name": "Yuki", '
    '"age": 45, "city": "Linz"}\n{"name": "Paul", "age": 19, "city": "Linz"}\n',
    "When water freezes, it grows. When it grows in the crack of a rock, the crack grows too. In spring the ice melts and the water runs "
    "deeper into the crack; in winter the water freezes again. After many winters the rock breaks in two.",
    "Q: Who wrote the report? A: Dr Silva wrote the report. Q: When did Dr Silva write the report? A: In October. Q: Who read the report "
    "in October? A: Nobody read the report in October, but in November everyone read the report.",
    "The market opens at six. At six the farmers bring apples, pears and plums; at seven the bakers bring bread; at eight the fishermen "
    "bring cod and herring. By noon the apples, the pears and the plums are gone, and only herring is left.",
    "- open the lid\n- lift the filter\n- rinse the filter\n- dry the filter\n- put the filter back\n- close the lid\n\nIf the filter is "
    "torn, do not put the filter back: open the lid, take out the filter and order a new filter.",
    "In the north of the island people say yes with a nod; in the south of the island people say yes with a raised hand. A traveller "
    "from the north once met a traveller from the south. One nodded, one raised a hand, and neither knew that both had said yes.",
)
"""Written for this use."""
