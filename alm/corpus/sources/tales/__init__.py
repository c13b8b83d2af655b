"""The built-in corpus: a seeded generator of small English tales whose words were all written for this project.

`tell.tell` tells one tale; `cast.NAMES` lists every name a tale can use with its pronouns; `words`, `places` and
`cast` hold the world, `story` the telling, `scenes` the turns any tale may take, and `plots` what happens.
"""
