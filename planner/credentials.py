"""Which environment variables look like credentials, so that they are kept out of plans."""

import re

__all__ = ["CREDENTIAL_NAME", "CREDENTIAL_VALUE", "is_credential"]

CREDENTIAL_NAME = r"""(?isx)
    ^ (?! (?:PWD|OLDPWD) $ ) (?: .* [_-] )?
    (?:
        (?: TOKEN | SECRETS? | PASSWORD | PASSWD | PASSPHRASE | CREDENTIALS? | APIKEY | KEYS?
          | AUTH | AUTHORIZATION | BEARER | PAT | PWD | COOKIE | JWT | CREDS
          | OTLP_HEADERS | (?: CLIENT | APP ) SECRET
          | (?: SECRET | ACCESS | PRIVATE | MASTER ) KEY | (?: SESSION | ACCESS | AUTH ) TOKEN )
      | (?! (?: BYPASS | COMPASS ) (?: [_-] | $ ) ) [^_-]* PASS (?: WORD )?
      # Elsewhere the plural is a number of a language model's tokens: MAX_NUM_BATCHED_TOKENS.
      | (?: API | ACCESS | BOT | REFRESH | GH | GITHUB | GITLAB | HF | HUGGINGFACE | OPENAI
          | ANTHROPIC | SLACK | WANDB ) [_-] TOKENS
    )
    (?: [_-] | $ )"""
"""Found in the names that look like a credential's; a pattern, so that a host can be told it."""

# A user of eight characters or more with no password may be a token that stands for both.
CREDENTIAL_VALUE = r"""(?ix)
    ://[^/@\s:]*:[^/@\s]+@
    | ://[^/@\s:?\#]{8,}@
    | (?:accountkey|accesskey|password|api[-_]?key|sharedaccesssignature)=
    | (?:^|;)\s*pwd=
    | \bbearer\s+[a-z0-9+/._~-]{8,}
    | authorization\s*[:=]
    | -----BEGIN\s
    | [?&](?:sig|token|access_token|x-amz-signature)=
    | ^(?:hf_|ghp_|gho_|github_pat_|glpat-|xox[abp]-|sk-)[a-z0-9_-]{10,}"""
"""Found in the values that hold a credential, whatever their names."""

_NAME = re.compile(CREDENTIAL_NAME)
_VALUE = re.compile(CREDENTIAL_VALUE)


def is_credential(name: str, value: str = "") -> bool:
    """Whether a variable looks like a credential: by its name, or by its value.

    By name: a word such as ``TOKEN``, ``KEY``, ``KEYS`` or ``BEARER``, or one that ends in
    ``PASSWORD`` or ``PASS``. ``TOKENS`` counts only after a word such as ``API`` or ``HF``;
    the shell's ``PWD`` and ``OLDPWD`` do not count. By value: a URL with a password, or with a
    user of 8 characters or more (which may be a token) or a signature, a connection string with
    ``AccountKey=``, ``Password=`` or ``Pwd=``, a header such as ``Bearer ...`` or ``api-key=``, a
    private key, or a text that begins as the tokens of well-known services do.
    """
    return bool(_NAME.search(name) or _VALUE.search(value))
