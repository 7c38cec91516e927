import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ["good", "bad", "film", "the", "user", "assistant", "hello", "yes", "no", ":", *"123456789"]


def fast(specials, model_max_length, single, pair=None, **named):
    """A word tokenizer made here: specials first, then ``WORDS``."""
    vocabulary = {word: i for i, word in enumerate([*specials, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if single:
        inner.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(s, vocabulary[s]) for s in specials]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        model_max_length=model_max_length,
        **named,
    )


@pytest.fixture
def bert():
    """Gives token types and puts [CLS] ... [SEP] around texts."""
    return fast(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        64,
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture
def llama():
    """Puts <s> before texts and knows </s>."""
    return fast(["[PAD]", "[UNK]", "<s>", "</s>"], 64, "<s> $A", bos_token="<s>", eos_token="</s>")


@pytest.fixture
def letters():
    """A token for each letter, between [CLS] and [SEP]."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: i for i, token in enumerate([*specials, *"abcdefgh"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(s, vocabulary[s]) for s in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
