"""Places of the tales, each with the words that lead to it, and the spots where things can be hidden."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A place. `at` locates a character in it; a spot can follow both `looked` and `lay`; a sight is a clause."""

    the: str
    at: str
    spots: tuple[str, ...]
    sights: tuple[str, ...]


@dataclass(frozen=True)
class Near:
    """The surroundings of a home: `where` follows a home, `the` is the place over which the stars come out."""

    where: str
    the: str


PLACES: tuple[Place, ...] = (
    Place("the forest", "in the forest",
          ("under a green bush", "behind a fallen log", "beside the old oak", "between two roots",
           "in a heap of leaves", "under a ring of mushrooms"),
          ("the trees stood tall and still", "birds sang high in the branches", "the ground was soft with moss")),
    Place("the beach", "on the beach",
          ("under an old net", "behind the gray rocks", "beside an old boat", "in the wet sand",
           "between two big shells", "under the dock"),
          ("the sea rolled over the sand", "birds cried over the water", "the wind was fresh and cold")),
    Place("the meadow", "in the meadow",
          ("in the long grass", "under the clover", "beside the broken fence", "behind the hay",
           "among the flowers", "under a thorn bush"),
          ("bees hummed in the clover", "the grass moved like water", "butterflies danced over the flowers")),
    Place("the garden", "in the garden",
          ("under the big leaves", "behind a bucket", "among the flowers", "beside the little gate",
           "under the stone bench", "behind a row of beans"),
          ("the flowers smelled sweet", "the beans climbed up the wall", "a robin sang on the gate")),
    Place("the hill", "on the hill",
          ("behind the big stone", "under a thorn bush", "beside the old tower", "in the tall grass",
           "under the lonely tree", "behind a low wall"),
          ("the wind sang in the grass", "the village looked as small as a toy", "clouds sailed over the sky")),
    Place("the river", "by the river",
          ("among the reeds", "under the wooden bridge", "behind the willow", "between the round stones",
           "on the muddy bank", "under an old net"),
          ("the water shone in the light", "butterflies flew over the reeds", "small fish jumped in the water")),
    Place("the market", "at the market",
          ("under the cheese table", "behind a big basket", "beside the well", "between two boxes",
           "under the bread table", "behind a heap of pumpkins"),
          ("the air was full of good smells", "everything smelled of bread", "people laughed and talked")),
    Place("the farm", "at the farm",
          ("in the hay", "behind the barn", "under the old cart", "beside the well", "behind the milk buckets",
           "among the pumpkins"),
          ("the cows ate slowly", "hens ran this way and that", "the barn door stood wide open")),
    Place("the park", "in the park",
          ("under the old trees", "behind the hedge", "beside the duck pond", "under a green bench",
           "among the flowers", "behind a low wall"),
          ("a duck swam on the pond", "the leaves danced in the wind", "it was cool under the trees")),
    Place("the orchard", "in the orchard",
          ("behind a ladder", "under the hedge", "among the fallen apples", "beside an old cart",
           "in an empty basket", "under the pear tree"),
          ("the branches were heavy with apples", "bees hummed around the plums", "the air smelled of apples")),
    Place("the lake", "by the lake",
          ("under the dock", "behind a green boat", "among the lilies", "between two rocks", "in the soft mud",
           "under a heap of branches"),
          ("the water was as smooth as glass", "a swan slid over the water", "the reeds sang in the wind")),
    Place("the old mill", "at the old mill",
          ("behind the mill wheel", "under the stone steps", "between two sacks of flour", "beside the mossy wall",
           "in a dusty corner", "under a broken chair"),
          ("the big wheel turned and turned", "white dust danced in the light", "the stream ran fast and cold")),
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
    "up the road", "around the pond", "along the stream", "under the arch of trees", "past the last house",
    "over the low wall", "through the gate",
)  # fmt: skip
