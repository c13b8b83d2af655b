"""Where tales happen: each place with the words that lead to it, and the spots where things can hide in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """`at` says where one is in it; a spot follows `looked` and `lay` alike; a sight is a whole clause."""

    the: str
    at: str
    spots: tuple[str, ...]
    sights: tuple[str, ...]


@dataclass(frozen=True)
class Near:
    """Where a home stands: `where` follows a home, `the` is what the stars come out over."""

    where: str
    the: str


PLACES: tuple[Place, ...] = (
    Place("the forest", "in the forest",
          ("under the ferns", "behind a fallen log", "beside the old oak", "between two roots", "in a pile of leaves",
           "under a ring of mushrooms"),
          ("the trees stood tall and still", "birds sang high in the branches", "the ground was soft with moss")),
    Place("the beach", "on the beach",
          ("under a heap of seaweed", "behind the gray rocks", "beside an old boat", "in the wet sand",
           "between two big shells", "under the wooden pier"),
          ("white waves rolled over the sand", "gulls cried above the water", "the air tasted of salt")),
    Place("the meadow", "in the meadow",
          ("in the long grass", "under the clover", "beside the broken fence", "behind the haystack",
           "among the daisies", "under a thorn bush"),
          ("bees hummed in the clover", "the grass moved like water", "butterflies danced over the flowers")),
    Place("the garden", "in the garden",
          ("under the cabbage leaves", "behind the watering can", "among the roses", "beside the little gate",
           "under the stone bench", "behind a row of beans"),
          ("the roses smelled sweet", "the beans climbed up their poles", "a robin hopped along the path")),
    Place("the hill", "on the hill",
          ("behind the big stone", "under a thorn bush", "beside the windmill", "in the tall grass",
           "at the foot of the lonely pine", "behind a low wall"),
          ("the wind sang in the grass", "the village looked as small as a toy", "clouds sailed by like ships")),
    Place("the river", "by the river",
          ("among the reeds", "under the wooden bridge", "behind the willow", "between the round stones",
           "on the muddy bank", "beneath an old net"),
          ("the water sparkled in the light", "dragonflies flew over the reeds", "small fish jumped in the water")),
    Place("the market", "at the market",
          ("under the cheese stall", "behind the baskets", "beside the fountain", "between two barrels",
           "under the bread table", "behind a heap of melons"),
          ("the stalls were full of good things", "the whole square smelled of bread", "people laughed and talked")),
    Place("the farm", "at the farm",
          ("in the hay", "behind the barn", "under the old cart", "beside the pump", "behind the milk cans",
           "among the pumpkins"),
          ("the cows chewed slowly", "hens ran this way and that", "the barn door stood wide open")),
    Place("the park", "in the park",
          ("under the swings", "behind the slide", "beside the duck pond", "under a green bench",
           "in the flower beds", "at the foot of the statue"),
          ("ducks swam on the pond", "the swings moved in the wind", "the old trees made cool shade")),
    Place("the orchard", "in the orchard",
          ("behind a ladder", "under the hedge", "among the fallen apples", "beside the beehives",
           "in an empty basket", "under the oldest tree"),
          ("the branches were heavy with fruit", "wasps hummed around the plums", "the air smelled of apples")),
    Place("the lake", "by the lake",
          ("under the dock", "behind a green boat", "among the lilies", "between two rocks", "in the soft mud",
           "under a heap of driftwood"),
          ("the water was as smooth as glass", "a swan slid over the water", "the mountains stood on their heads "
           "in the water")),
    Place("the old mill", "at the old mill",
          ("behind the mill wheel", "under the stone steps", "between two sacks of flour", "beside the mossy wall",
           "in a dusty corner", "under a broken chair"),
          ("the big wheel turned and groaned", "white dust danced in the light", "the stream ran fast and cold")),
)  # fmt: skip

NEAR: tuple[Near, ...] = (
    Near("at the edge of a village", "the village"),
    Near("at the end of a long lane", "the lane"),
    Near("on a green hill", "the hill"),
    Near("near the sea", "the sea"),
    Near("near a quiet river", "the river"),
    Near("not far from the woods", "the woods"),
    Near("between two hills", "the hills"),
    Near("beside a field of corn", "the corn"),
    Near("at the foot of a mountain", "the mountain"),
    Near("on the far side of a bridge", "the bridge"),
    Near("in a sunny valley", "the valley"),
    Near("behind an old church", "the church"),
)

WAYS: tuple[str, ...] = (
    "over the bridge", "down the lane", "past the church", "through the tall grass", "across the field",
    "up the path", "around the pond", "along the stream", "under the arch of trees", "past the last house",
    "over the low wall", "through the gate",
)  # fmt: skip
