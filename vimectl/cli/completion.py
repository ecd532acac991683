"""Complete command lines in bash, zsh and fish.

Typer finds what can follow, and has the options ``--show-completion`` and ``--install-completion``. The
scripts for the shells replace those of Typer 0.28, which complete nothing after a "=" or ":" in bash and on
the first Tab of a zsh, run the program twice in fish, and put a blank after ``KEY=`` and ``folder/``.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from vimectl.util.console import out

VARIABLE = "_VIMECTL_COMPLETE"
# What the scripts set: the command line up to the cursor, and the characters that divide words in bash.
_LINE, _BREAKS = "_VIMECTL_LINE", "_VIMECTL_BREAKS"

_BASH = """\
_vimectl_completion() {
    local IFS=$'\\n'
    COMPREPLY=($(_VIMECTL_COMPLETE=complete_bash _VIMECTL_LINE="${COMP_LINE:0:COMP_POINT}" \\
        _VIMECTL_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null))
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then compopt -o nospace; fi
}

complete -o default -o nosort -F _vimectl_completion vimectl
"""
_ZSH = """\
#compdef vimectl

_vimectl() {
    local -a lines values parts
    local line
    lines=("${(@f)$(_VIMECTL_COMPLETE=complete_zsh _VIMECTL_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" \\
        "$words[1]" 2>/dev/null)}")
    for line in $lines; do [[ -n $line ]] && values+=("$line"); done
    if (( ! $#values )); then _files; return; fi
    parts=(${(M)values:#*[=/]}) values=(${values:#*[=/]})
    (( $#values )) && _describe -V vimectl values
    (( $#parts )) && compadd -S '' -- $parts
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _vimectl "$@"
else
    compdef _vimectl vimectl
fi
"""
_FISH = """\
function _vimectl_completion
    set -l words (commandline -opc)
    set -l values (env _VIMECTL_COMPLETE=complete_fish _VIMECTL_LINE=(commandline -cp | string collect) \\
        $words[1] 2>/dev/null)
    if test (count $values) -gt 0
        printf '%s\\n' $values
    else
        __fish_complete_path (commandline -ct)
    end
end

complete --command vimectl --no-files --keep-order --arguments '(_vimectl_completion)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
# Bytes that zsh's _describe takes for the end of a value, and what a shell would interpret in a word.
_UNSAFE = re.compile(r"[^\w@%+=:,./~-]")


def use_own_scripts() -> None:
    """Make ``--show-completion`` and ``--install-completion`` use the scripts of this module."""
    from typer import _completion_shared

    # Typer formats them with %.
    texts = {shell: text.replace("%", "%%") for shell, text in SCRIPTS.items()}
    _completion_shared._completion_scripts.update(texts)


def handle_option(option: str, shell: str) -> bool:
    """Show or install the script for a shell that is named; Typer's options are for the shell in use."""
    if shell not in SCRIPTS or option not in ("--show-completion", "--install-completion"):
        return False
    if option == "--show-completion":
        out.print(SCRIPTS[shell])
    else:
        from typer._completion_shared import install

        use_own_scripts()
        _, path = install(shell, "vimectl")
        out.print(f"{path}: completion for {shell}; it takes effect in a new shell")
    return True


def line_words() -> list[str] | None:
    """Return the complete words after the program's name if a shell asks for completions, else None."""
    return _split(os.environ.get(_LINE, ""))[0] if VARIABLE in os.environ else None


def answer(tree: Any) -> str:
    """Return the completions that the shell asks for, one on a line; nothing where there are none."""
    from typer._completion_classes import BashComplete

    shell = os.environ[VARIABLE].removeprefix("complete_")
    words, raw = _split(os.environ.get(_LINE, ""))
    incomplete = (_shell_words(raw) or [""])[0]
    found = BashComplete(tree, {}, "vimectl", VARIABLE).get_completions(words, incomplete)
    option, equals, _ = incomplete.partition("=")
    # Of --name=value the library returns values.
    prefix = option + equals if equals and option.startswith("--") else ""
    lines = []
    for item in found:
        value = prefix + item.value
        help = " ".join((item.help or "").split())
        if shell == "fish":
            lines.append(f"{value}\t{help}" if help else value)
        elif shell == "zsh":
            lines.append(value.replace(":", r"\:") + (f":{help}" if help and value[-1] not in "=/" else ""))
        else:
            lines.append(_for_bash(value, raw))
    return "\n".join(lines)


def _for_bash(value: str, raw: str) -> str:
    """Return the part of a value that replaces the current word of bash, quoted as the word is."""
    if raw[:1] in ("'", '"'):
        return value
    # Bash divides words at these characters; it replaces what is after the last one.
    breaks = set(os.environ.get(_BREAKS, "")) & set("=:")
    start = max((raw.rfind(character) + 1 for character in breaks), default=0)
    return _UNSAFE.sub(r"\\\g<0>", value[start:])


def _split(line: str) -> tuple[list[str], str]:
    """Return the complete words of a command line after the program, and the last one as it is typed."""
    words = _shell_words(line)
    if not words or (line[-1:].isspace() and _shell_words(f"{line}x")[-1] == "x"):
        return words[1:], ""
    start = len(line) - 1
    while start > 0 and len(_shell_words(line[:start])) == len(words):
        start -= 1
    return words[1:-1], line[start:].lstrip()


def _shell_words(text: str) -> list[str]:
    """Split a text as a shell does; an open quote at its end counts as closed."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:  # no closing quotation
        words.append(lexer.token)
    return words
