"""The verb that prints completion scripts for shells, made from the usage texts: completion."""

from __future__ import annotations

import sys

from s4raw import arguments, verbs
from s4raw.arguments import Arguments, Verb
from s4raw.errors import UsageError

USAGE = {
    "completion": """\
Print a script that completes verbs, options, local files and keys of the ring.

Usage: s4raw completion SHELL

SHELL is bash or zsh. For this shell, and in ~/.bashrc or ~/.zshrc for the next ones:

source <(s4raw completion bash)
source <(s4raw completion zsh)    # after compinit

Options:
  -h, --help         show this text
""",
}

_BASH = r"""# bash completion for s4raw: source <(s4raw completion bash)

_s4raw() {
    local line=${COMP_LINE:0:COMP_POINT} verbs='@VERBS@' options='' values='' word conf=() previous='' verb members=''
    local current=${line##*[[:space:]]}  # bash itself splits s4:// at its colon
    local -a words
    read -ra words <<< "${line%"$current"}"
    COMPREPLY=()
    if ((${#words[@]} == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$verbs --help --version" -- "$current")
        return
    fi
    verb=${words[1]}
    case $verb in
@FAMILIES@
    esac
    if [[ -n $members ]]; then
        if ((${#words[@]} == 2)); then
            mapfile -t COMPREPLY < <(compgen -W "$members --help" -- "$current")
            return
        fi
        verb+=" ${words[2]}"
    fi
    case $verb in
@CASES@
        *) return ;;
    esac
    for word in "${words[@]}"; do
        [[ $previous == -c || $previous == --conf ]] && conf=(-c "$word")
        previous=$word
    done
    if [[ " $values " == *" $previous "* ]]; then
        return
    elif [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    elif [[ $current == s4://* ]]; then
        mapfile -t COMPREPLY < <(_s4raw_keys "$1" "$current" "${conf[@]}")
    elif [[ -n $current && s4:// == "$current"* ]]; then
        COMPREPLY=(s4://)
    fi
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace
    fi
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}

complete -o default -F _s4raw s4raw
"""

_ZSH = r"""#compdef s4raw
# zsh completion for s4raw: source <(s4raw completion zsh)

_s4raw() {
    local current=${words[CURRENT]} previous=${words[CURRENT-1]} options='' values='' place verb=${words[2]} members=''
    local -a conf keys
    if ((CURRENT == 2)); then
        compadd -- @VERBS@ --help --version
        return
    fi
    case $verb in
@FAMILIES@
    esac
    if [[ -n $members ]]; then
        if ((CURRENT == 3)); then
            compadd -- ${=members} --help
            return
        fi
        verb+=" ${words[3]}"
    fi
    case $verb in
@CASES@
        *) return 1 ;;
    esac
    place=${words[(I)(-c|--conf)]}
    ((place && place + 1 < CURRENT)) && conf=(-c "${words[place+1]}")
    if [[ " $values " == *" $previous "* ]]; then
        _files
    elif [[ $current == -* ]]; then
        compadd -- ${=options}
    elif [[ $current == s4://* ]]; then
        keys=("${(@f)$(_s4raw_keys "${words[1]}" "$current" "${conf[@]}")}")
        keys=(${keys:#})
        compadd -S '' -- ${(M)keys:#*/}
        compadd -- ${keys:#*/}
    else
        [[ -n $current && s4:// == "$current"* ]] && compadd -S '' -- s4://
        _files
    fi
}

if [[ ${funcstack[1]} == _s4raw ]]; then
    _s4raw "$@"
else
    compdef _s4raw s4raw
fi
"""

# For both: the whole names of what begins with $2, from "DATE TIME SIZE NAME" and "  PRE name/".
_KEYS = r"""_s4raw_keys() {
    local command=$1 current=$2 first second third fourth rest
    [[ $current == *[*?[]* ]] && return
    shift 2
    "$command" ls "$@" -- "$current" 2>/dev/null | while read -r first second third fourth rest; do
        if [[ $first == PRE ]]; then
            echo "${current%/*}/$second"
        elif [[ -n $rest ]]; then
            continue  # white space in the name: it cannot be said as s4://
        elif [[ $current == s4://*/* ]]; then
            echo "${current%/*}/$fourth"
        else
            echo "s4://$fourth/"
        fi
    done
}
"""


def completion(parsed: Arguments) -> int:
    """Print a completion script."""
    scripts = {"bash": _BASH, "zsh": _ZSH}
    shell = parsed["SHELL"]
    if shell not in scripts:
        raise UsageError(f"there is completion for {' and '.join(scripts)}, not for {shell!r}")
    first, _, rest = scripts[shell].partition("\n\n")
    script = f"{first}\n\n{_KEYS}\n{rest}"
    families = {family: verbs.members(family)[1] for family in verbs.FAMILIES}
    texts = {verb: verbs.load(verb)[0] for verb in verbs.MODULES if verb not in families}
    texts |= {f'"{family} {verb}"': text for family, usages in families.items() for verb, text in usages.items()}
    for mark, lines in {
        "@VERBS@": [" ".join(verbs.MODULES)],
        "@FAMILIES@": [f"        {family}) members='{' '.join(usages)}' ;;" for family, usages in families.items()],
        "@CASES@": [_case(verb, text) for verb, text in texts.items()],
    }.items():
        script = script.replace(mark, "\n".join(lines))
    sys.stdout.write(script)
    return 0


def _case(verb: str, text: str) -> str:
    """The options of a verb, and those of them that take a value, for a shell's ``case``."""
    found = arguments.options(text)
    all_names = " ".join(name for names, _ in found for name in names)
    values = " ".join(name for names, takes_value in found for name in names if takes_value)
    return f"        {verb}) options='{all_names}' values='{values}' ;;"


VERBS: dict[str, Verb] = {"completion": completion}
