"""The small scripts between a user's ``pulumi`` and the engine, as text.

They are shell, not Python, because ``pulumi stack output`` and its like must answer at once.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from toolchain.bootstrap import paths
from toolchain.engine import before

NAMESPACES = Path("/run/netns")
"""Where ``ip netns`` names network namespaces."""
MARK = "# nestlab's own way to the engine"
"""In the first lines of each wrapper: no checkout takes another's wrapper for an engine."""

HERE = "NESTLAB_HERE"
"""Variable that has the engine stay in the network that it is called in."""

_WRAPPER = r"""#!/bin/sh
@MARK@; written by `make toolchain`.
# Whatever the engine and its plugins write is its user's alone: states, logs, keys, discs with answers.
# It enters the network namespace that libvirt lives in, lets a run that was killed be put right
# before the next one, and becomes the engine, so that signals reach that one.
umask 077
engine=@ENGINE@
root=@ROOT@
namespaces=@NAMESPACES@
if [ -p "$root/@LOCAL@/env.sh" ]; then
  echo "error: $root/@LOCAL@/env.sh is a pipe: who reads it waits until somebody writes." >&2
  echo "Move it elsewhere, run \`make toolchain\`, and the same command again." >&2
  exit 1
fi
. "$root/@LOCAL@/env.sh"
if ! [ -x "$engine" ] || ! [ -x "$root/.venv/bin/python3" ]; then
  echo "error: the engine or the Python environment of $root is gone, as after \`make clean CACHE=1\` elsewhere." >&2
  echo "Run \`make toolchain\` there, and the same command again." >&2
  exit 1
fi

namespace=
if [ -n "$@HERE@" ]; then
  : # what the engine is to speak to is here, and libvirt is not asked
elif [ -f "$root/@LOCAL@/netns" ] && [ -r "$root/@LOCAL@/netns" ]; then
  read -r namespace <"$root/@LOCAL@/netns" || true
elif [ -e "$root/@LOCAL@/netns" ]; then
  echo "error: $root/@LOCAL@/netns can't be read, and says in which network libvirt lives." >&2
  echo "Run \`make host\` as its owner, and the same command again." >&2
  exit 1
fi
if [ -n "$namespace" ] && ! [ /proc/self/ns/net -ef "$namespaces/$namespace" ]; then
  if ! [ -e "$namespaces/$namespace" ]; then
    echo "error: libvirt's network namespace $namespace is gone, as after a restart of the machine." >&2
    echo "Run \`make host\`, and the same command again." >&2
    exit 1
  fi
  if [ "$(id -u)" = 0 ]; then
    exec ip netns exec "$namespace" "$0" "$@"
  fi
  if sudo -n true 2>/dev/null; then
    exec sudo -n --preserve-env ip netns exec "$namespace" \
      setpriv --reuid "$(id -u)" --regid "$(id -g)" --init-groups -- "$0" "$@"
  fi
  echo "error: libvirt's guests live in the network namespace $namespace, which only root may enter," >&2
  echo "and sudo asks for a password. Run \`sudo -v\` first, or this command as root." >&2
  exit 1
fi

# The first two words that are neither an option nor an option's value. As for the engine (cobra's
# stripFlags): ahead of a command's name an option takes the next word, unless it is a known switch.
command= second= skip= help= remove= select=yes
case ${PULUMI_OPTION_REMOVE-} in [Tt][Rr][Uu][Ee] | 1) remove=yes ;; esac
for word in "$@"; do
  case $word in
    -h | --help) help=yes ;;
    --no-select) select= ;;
    --remove | --remove=[1tT]*) remove=yes ;;
    --remove=*) remove= ;;
  esac
  if [ -n "$skip" ]; then
    skip=
    continue
  fi
  case $word in
    -*=* | -e | -Q | --disable-integrity-checking | --emoji | --fully-qualify-stack-names | --help | -h) ;;
    --logflow | --logtostderr | --non-interactive | --show-* | -i | -u) ;;
    --* | -?)
      case $command in '' | stack) [ -n "$second" ] || skip=yes ;; esac ;;
    -*) ;;
    *) if [ -z "$command" ]; then command=$word; else second=${second:-$word}; fi ;;
  esac
done
# Without the environment's packages, which would cost each command a tenth of a second.
before() { PYTHONPATH=$root "$root/.venv/bin/python3" -S -P -m toolchain.engine.before "$@"; }
if [ -z "$help$NESTLAB_RECOVERING" ]; then
  case $command in
    up | update | preview | pre | refresh | destroy | down | dn | import | watch | logs)
      file=$(before -- "$@")
      status=$?
      case $status in
        0) ;;
        @PUT_RIGHT@) NESTLAB_RECOVERING=yes "$root/.venv/bin/python3" -P -m toolchain.engine.recover -- "$@" || exit $? ;;
        *) exit $status ;;
      esac
      [ -z "$file" ] || export PULUMI_OPTION_CONFIG_FILE="$file"
      case $remove$command in
        yesdestroy | yesdown | yesdn)
          # The engine would remove the stack's file, its owner's work, with the state.
          name=$(before name -- "$@") || exit $?
          if [ -n "$name" ]; then
            for word in "$@"; do
              shift
              case $word in --remove | --remove=*) ;; *) set -- "$@" "$word" ;; esac
            done
            unset PULUMI_OPTION_REMOVE
            # Not by this shell, which would end at a signal and leave the engine at work.
            export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
            exec "$root/.venv/bin/python3" -S -P -m toolchain.engine.child "$engine" "$name" "$@"
          fi
          ;;
      esac
      ;;
    # Pulumi's own language host would make .venv anew, which is a link into the cache, and fails.
    install) case $PWD/ in "$root"/*) export PULUMI_OPTION_NO_DEPENDENCIES=true ;; esac ;;
    stack)
      case $second in
        init | new | create | setup)
          folder=$(before new -- "$@") || exit $?
          if [ -n "$folder" ]; then
            "$engine" -C "$folder" "$@" || exit $?
            [ -n "$select" ] || exit 0
            exec "$engine" stack select "$("$engine" -C "$folder" stack --show-name)"
          fi
          ;;
        # The stack's file is its owner's work; the engine would remove it with its state.
        rm | remove | delete) export PULUMI_OPTION_PRESERVE_CONFIG=true ;;
      esac
      ;;
  esac
fi
exec "$engine" "$@"
"""

# SIGINT in the first tenths of a second, while modules are still imported, would print a trace.
_HOST = """#!/bin/sh
exec "$NESTLAB_ROOT/.venv/bin/python3" -P -c '
import gc, signal
gc.disable()
signal.signal(signal.SIGINT, signal.SIG_DFL)
from toolchain.@MODULE@ import main
main()' "$@"
"""


def pulumi(engine: Path) -> str:
    """Return the script that stands for ``pulumi`` in this checkout and becomes ``engine``."""
    filled = {
        "@MARK@": MARK,
        "@ENGINE@": shlex.quote(str(engine)),
        "@ROOT@": shlex.quote(str(paths.ROOT)),
        "@LOCAL@": paths.LOCAL.name,
        "@NAMESPACES@": shlex.quote(str(NAMESPACES)),
        "@PUT_RIGHT@": str(before.PUT_RIGHT),
        "@HERE@": HERE,
    }
    text = _WRAPPER
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return text


def host(module: str) -> str:
    """Return the script that becomes one of the Python hosts.

    It lies beside the engine in the cache, where the engine looks for it, and so serves every
    checkout: the one it is called from is in the environment.
    """
    return _HOST.replace("@MODULE@", module)
