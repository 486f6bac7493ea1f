"""Which environment variables look like credentials, so that they are kept out of plans."""

import re
from itertools import pairwise

__all__ = ["is_credential"]

_CREDENTIAL_WORDS = frozenset(
    {
        *("TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL"),
        *("CREDENTIALS", "APIKEY", "KEY", "KEYS", "AUTH", "BEARER", "PAT", "PWD", "COOKIE"),
    }
)
_CREDENTIAL_ENDS = ("PASSWORD", "PASS")
_NOT_CREDENTIAL_WORDS = frozenset({"BYPASS", "COMPASS"})
_FOLDERS = frozenset({"PWD", "OLDPWD"})

# Elsewhere the plural is a number of a language model's tokens, as in MAX_NUM_BATCHED_TOKENS.
_BEFORE_TOKENS = frozenset(
    {
        *("API", "ACCESS", "BOT", "REFRESH", "GH", "GITHUB", "GITLAB", "HF", "HUGGINGFACE"),
        *("OPENAI", "ANTHROPIC", "SLACK", "WANDB"),
    }
)

# A user of eight characters or more with no password may be a token that stands for both.
_CREDENTIAL_VALUE = re.compile(
    r"""://[^/@\s:]*:[^/@\s]+@
    | ://[^/@\s:?#]{8,}@
    | (?:accountkey|accesskey|password)=
    | (?:^|;)\s*pwd=""",
    re.IGNORECASE | re.VERBOSE,
)


def is_credential(name: str, value: str = "") -> bool:
    """Whether a variable looks like a credential: by its name, or by its value.

    By name: a word such as ``TOKEN``, ``KEY``, ``KEYS`` or ``BEARER``, or one that ends in
    ``PASSWORD`` or ``PASS``. ``TOKENS`` counts only after a word such as ``API`` or ``HF``;
    the shell's ``PWD`` and ``OLDPWD`` do not count. By value: a URL with a password, or with a
    user of 8 characters or more (which may be a token), or a connection string with
    ``AccountKey=``, ``Password=`` or ``Pwd=``.
    """
    return _is_credential_name(name.upper()) or bool(_CREDENTIAL_VALUE.search(value))


def _is_credential_name(name: str) -> bool:
    if name in _FOLDERS:
        return False
    words = name.replace("-", "_").split("_")
    if not _CREDENTIAL_WORDS.isdisjoint(words):
        return True
    if any(each.endswith(_CREDENTIAL_ENDS) for each in words if each not in _NOT_CREDENTIAL_WORDS):
        return True
    return any(b == "TOKENS" and a in _BEFORE_TOKENS for a, b in pairwise(words))
