from alm.tokenizers import special


def test_the_specials_and_their_order_are_frozen() -> None:
    named = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
    assert named + tuple(f"<|reserved_{index}|>" for index in range(12)) == special.SPECIALS
    assert named == (special.END_OF_TEXT, special.TURN_START, special.TURN_END, special.PADDING)
