"""Short texts of many kinds, which show at a glance what a tokenizer is good at. Written for `alm`."""

from __future__ import annotations

PROBES: dict[str, str] = {
    "English": (
        "The boat had been lying upside down behind the shed since autumn, and when we turned it over, a family of "
        "mice looked up at us as if we had knocked without waiting. My aunt laughed so hard that she had to sit down "
        "on the jetty. “Well,” she said, “they have paid no rent, but they have kept it dry.” We launched it an hour "
        "later than planned, and nobody minded.\n"
    ),
    "dialogue": (
        "User: hi, i can't log in anymore, it just says wrong password??\n"
        "Agent: I'm sorry about that. Could you tell me which e-mail address you're using?\n"
        "User: its the same as always... wait. ok never mind lol, caps lock was on\n"
        "Agent: That happens to all of us! Is there anything else I can help you with today?\n"
    ),
    "Python": (
        "def moving_average(values, window=5):\n"
        '    """Yield the mean of the last `window` values."""\n'
        "    total = 0.0\n"
        "    for index, value in enumerate(values):\n"
        "        total += value\n"
        "        if index >= window:\n"
        "            total -= values[index - window]\n"
        "        yield total / min(index + 1, window)\n\n\n"
        'if __name__ == "__main__":\n'
        "    print([round(x, 2) for x in moving_average([3, 1, 4, 1, 5, 9])])\n"
    ),
    "JSON": (
        '{"id": 40718, "name": "garden sensor", "online": true, "tags": ["soil", "north"],\n'
        ' "readings": [{"at": "2026-03-01T06:30:00Z", "moisture": 0.41, "celsius": 7.5},\n'
        '              {"at": "2026-03-01T07:00:00Z", "moisture": 0.4, "celsius": null}]}\n'
    ),
    "numbers": (
        "| year | births | share | change |\n|------|-------:|------:|-------:|\n"
        "| 2019 | 12,804 | 31.5% | -204 |\n| 2020 | 11,997 | 29.8% | -807 |\n| 2021 | 12,350 | 30.2% | +353 |\n"
        "pi = 3.14159265358979, 2^31 - 1 = 2147483647, 0x1F40 = 8000, 6.02e23, 17:45, +49 30 1234567\n"
    ),
    "German": (
        "Am Morgen war der Zug so voll, dass die Schaffnerin nur noch die Arme hob und weiterging. Neben mir übte ein "
        "älterer Herr leise Vokabeln; er wolle, sagte er, seiner Enkelin in Lissabon schreiben können. Die "
        "Straßenbahnhaltestelle vor dem Rathaus war gesperrt.\n"
    ),
    "French": (
        "Le boulanger avait oublié d'éteindre la lumière, et toute la rue croyait qu'il travaillait déjà. À six "
        "heures, quand il est enfin arrivé, trois clients l'attendaient devant la porte en grelottant ; l'un d'eux "
        "avait même apporté du café.\n"
    ),
    "Spanish": (
        "Cuando empezó a llover, los niños se metieron bajo el puente y siguieron jugando como si nada. ¿Quién iba a "
        "decirles que el río crecería tanto? Al día siguiente encontraron la pelota dos pueblos más abajo.\n"
    ),
    "Turkish": (
        "Annem pencereyi açınca mutfağa deniz kokusu doldu. Çaydanlık ocakta fokurduyor, kedi güneşin düştüğü tek "
        "köşede uyuyordu. Kimse konuşmuyordu, çünkü herkes gelecek mektubu bekliyordu.\n"
    ),
    "Greek": (
        "Το καράβι έφυγε πριν ξημερώσει και στο λιμάνι έμειναν μόνο οι γάτες. Ο παππούς κοίταζε τη θάλασσα χωρίς να "
        "λέει τίποτα, με το καπέλο του στα γόνατα.\n"
    ),
    "Russian": (
        "Вечером дети принесли домой ежа и поставили ему блюдце с водой. Ёж фыркнул, обошёл кухню и ушёл спать под "
        "шкаф. Утром его уже нигде не было, только пустое блюдце стояло у двери.\n"
    ),
    "Arabic": "في الصباح الباكر فتح البائع دكانه ورتّب الفاكهة في صفوف ملوّنة. مرّ طفل صغير وسأله: كم ثمن هذه التفاحة؟\n",
    "Hebrew": "בבוקר ירד גשם חזק, והרחוב התמלא במטריות צבעוניות. הילדה ביקשה מאמא שלה לקפוץ בכל שלולית בדרך לגן.\n",
    "Hindi": "सुबह होते ही दादी ने आँगन में पानी छिड़का और तुलसी के पास दीपक जलाया। बच्चे अभी तक सो रहे थे।\n",
    "Thai": "เช้านี้ฝนตกหนัก แม่ค้าจึงเลื่อนเวลาเปิดร้านออกไปอีกหนึ่งชั่วโมง ลูกค้าหลายคนยืนรออยู่ใต้ชายคา\n",
    "Chinese": "早上的市场很热闹，卖豆腐的老人一边切一边唱歌。我们买了两斤青菜和一条鱼，回家的路上又下起了小雨。\n",
    "Japanese": (
        "朝の市場はとてもにぎやかで、魚屋のおじさんが大きな声で客を呼んでいた。"
        "雨が降り出したので、私たちは急いで帰った。\n"
    ),
    "Korean": (
        "아침 시장은 아주 붐볐고, 생선 가게 아저씨는 큰 소리로 손님을 불렀다. "
        "비가 오기 시작해서 우리는 서둘러 집으로 갔다.\n"
    ),
    "emoji": (
        "see you at 8 🎉🎉 bring snacks pls 🙏🏽 … family photo 👨\u200d👩\u200d👧\u200d👦 tomorrow! "
        "❤️\u200d🔥 🇧🇷🇯🇵 ☕️+🥐=😌 (╯°□°)╯︵ ┻━┻\n"
    ),
}
"""Texts by kind."""
