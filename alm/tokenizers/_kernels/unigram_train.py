"""Unigram training in compiled code: repeated substrings, expected counts, and the loss without each piece.

The text is an array of character codes from 1, in runs that end with a 0. Each position has a list of the matches that
begin there, the shortest first: match m is `piece << LENGTH_BITS | characters`, and those of position p are
`matches[begins[p]:begins[p + 1]]`. Piece c - 1 is the character with code c, so no list inside a run is empty.
"""

from __future__ import annotations

import math

from alm.tokenizers._kernels.compiling import inlined, kernel

LENGTH_BITS = 5
_LENGTH = (1 << LENGTH_BITS) - 1

_SMALL = 1e-100
"""Forward sums below this are scaled up. It is far from both limits of float64: within one piece's length of a
position, sums differ by less than the probability of that many rare characters."""


@kernel
def shared_lengths(codes, order, most, shared):
    """Write the number of characters that each suffix of `order` shares with the previous one, at most `most`."""
    shared[0] = 0
    for x in range(1, order.size):
        left, right = order[x - 1], order[x]
        length = 0
        while length < most and codes[left + length] == codes[right + length] and codes[left + length] != 0:
            length += 1
        shared[x] = length


@kernel
def repeats(order, shared, left, weights, preceding, size, found, stack):
    """Write (first, last + 1, characters) of each substring to use as a seed, at most `size` long. Return their number.

    First and last are suffixes in `order`. A seed has two characters or more and continues in more than one way both to
    the right and to the left (`preceding` counts the changes of the preceding character), because any other substring
    occurs as often as a longer one. A complete run that no other contains is a seed too, if it occurs more than once.
    """
    count, depth = 0, 0
    stack[0, 0], stack[0, 1] = 0, 0
    for x in range(1, order.size + 1):
        common = shared[x] if x < order.size else 0
        own, at = left[order[x - 1]], order[x - 1]
        is_alone = 1 < own <= size and own > common and own > shared[x - 1]
        if is_alone and is_whole(left, at) and weights[x] - weights[x - 1] > 1:
            found[count, 0], found[count, 1], found[count, 2] = x - 1, x, own
            count += 1
        first = x - 1
        while stack[depth, 0] > common:
            first = stack[depth, 1]
            if stack[depth, 0] > 1 and preceding[x - 1] > preceding[first]:
                found[count, 0], found[count, 1], found[count, 2] = first, x, stack[depth, 0]
                count += 1
            depth -= 1
        if stack[depth, 0] < common:
            depth += 1
            stack[depth, 0], stack[depth, 1] = common, first
    return count


@inlined
def is_whole(left, at):
    """Whether a run begins at `at`."""
    return at == 0 or left[at - 1] == 0


@kernel
def list_matches(order, seeds, codes, characters, begins, matches, stack):
    """Count the matches of each position in `begins[position + 1]`, or write them if `matches` has room.

    `seeds` are rows of `repeats` in the order of their first suffix, the shorter first. Seed i is piece
    `characters + i`. When writing, `begins` holds the start of each list.
    """
    depth, next_ = 0, 0
    for x in range(order.size):
        while depth > 0 and seeds[stack[depth - 1], 1] <= x:
            depth -= 1
        while next_ < seeds.shape[0] and seeds[next_, 0] == x:
            stack[depth] = next_
            depth += 1
            next_ += 1
        position = order[x]
        if matches.size == 0:
            begins[position + 1] = depth + 1
            continue
        at = begins[position]
        matches[at] = ((codes[position] - 1) << LENGTH_BITS) | 1
        for i in range(depth):
            matches[at + 1 + i] = ((characters + stack[i]) << LENGTH_BITS) | seeds[stack[i], 2]


@kernel
def expect(
    starts, lengths, counts, begins, matches, probabilities, most, forward, backward, rescued, factors, expected
):  # fmt: skip
    """Add the expected count of each piece in the runs to `expected`. Return the log-likelihood of the runs.

    Forward and backward sums over all segmentations (Rabiner 1989, sections III and V.A). A forward sum that becomes
    small is scaled to 1, together with the partial sums of the next `most` characters. The backward pass applies the
    same factors in the opposite order.
    """
    total = 0.0
    for run in range(starts.size):
        start, length, scale = starts[run], lengths[run], 0.0
        forward[: length + 1] = 0.0
        forward[0] = 1.0
        rescues = 0
        for at in range(length):
            here = forward[at]
            if here < _SMALL:
                rescued[rescues], factors[rescues] = at, 1.0 / here
                scale += math.log(here)
                scaled(forward, at, min(length, at + most - 1), factors[rescues])
                rescues += 1
                here = 1.0
            for i in range(begins[start + at], begins[start + at + 1]):
                match = matches[i]
                forward[at + (match & _LENGTH)] += here * probabilities[match >> LENGTH_BITS]
        total += counts[run] * (math.log(forward[length]) + scale)
        backward[length] = counts[run] / forward[length]
        for at in range(length - 1, -1, -1):
            here, behind = forward[at], 0.0
            for i in range(begins[start + at], begins[start + at + 1]):
                match = matches[i]
                rest = probabilities[match >> LENGTH_BITS] * backward[at + (match & _LENGTH)]
                behind += rest
                expected[match >> LENGTH_BITS] += here * rest
            backward[at] = behind
            if rescues > 0 and rescued[rescues - 1] == at:
                rescues -= 1
                scaled(backward, at, min(length, at + most - 1), factors[rescues])
    return total


@inlined
def scaled(sums, first, last, factor):
    """Multiply the sums of a window, both ends included."""
    for at in range(first, last + 1):
        sums[at] *= factor


@kernel
def losses(
    places, lengths, begins, matches, scores, frequencies, total, characters, best, via, lost
):  # fmt: skip
    """Write the loss of log-likelihood for each piece, if it is spelled in other pieces instead.

    The loss is -1 for a piece whose best spelling already is another, and infinite for the first `characters` pieces.
    """
    log_total = math.log(total)
    for piece in range(lengths.size):
        if piece < characters:
            lost[piece] = math.inf
            continue
        length = lengths[piece]
        best[: length + 1] = -math.inf
        best[0] = 0.0
        for at in range(length):
            for i in range(begins[places[piece] + at], begins[places[piece] + at + 1]):
                other, end = matches[i] >> LENGTH_BITS, at + (matches[i] & _LENGTH)
                if end > length or other == piece:
                    continue
                score = best[at] + scores[other]
                if score > best[end]:
                    best[end], via[end] = score, i
        if best[length] >= scores[piece]:
            lost[piece] = -1.0
            continue
        frequency, parts, spelled, end = frequencies[piece], 0, 0.0, length
        while end > 0:
            match = matches[via[end]]
            spelled += math.log(frequencies[match >> LENGTH_BITS] + frequency)
            parts += 1
            end -= match & _LENGTH
        spelled -= parts * math.log(total + frequency * (parts - 1))
        lost[piece] = frequency * (math.log(frequency) - log_total - spelled)


@kernel
def keep_matches(begins, matches, renamed):
    """Drop the matches of pieces whose `renamed` is -1, in place, and rename the others. Return the number kept."""
    kept, start = 0, begins[0]
    for position in range(begins.size - 1):
        stop = begins[position + 1]
        for i in range(start, stop):
            piece = renamed[matches[i] >> LENGTH_BITS]
            if piece >= 0:
                matches[kept] = (piece << LENGTH_BITS) | (matches[i] & _LENGTH)
                kept += 1
        start = stop
        begins[position + 1] = kept
    return kept
