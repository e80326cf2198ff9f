# Shared by demo.sh and test.sh, which set `root` and source it: a Python and a virtual environment
# that has everything, or one clear message that says what is missing and how to get it.

# Minor versions of Python 3 that PyPI's ROS 2 wheels and all other dependencies are there for.
readonly OLDEST=10 NEWEST=13

# What a Python says about itself, in one process: minor version (0 unless it is Python 3), the
# modules ensurepip and rclpy (no-... without them), version, prefix. rclpy is asked for only where
# a ROS 2 is sourced: it takes half a second.
readonly PROBE='
import sys
words = [str(sys.version_info[1] if sys.version_info[0] == 3 else 0)]
for module in ("ensurepip", "rclpy"):
    try:
        if module == "ensurepip" or sys.argv[1] == "sourced":
            __import__(module)
        words.append(module)
    except ImportError:
        words.append("no-" + module)
words.append("%d.%d" % sys.version_info[:2])
words.append(getattr(sys, "base_prefix", sys.prefix))
print(" ".join(words))
'

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

fail() {
    say "$@"
    exit 1
}

# find_python: sets `mode` to `sourced` (the ROS 2 distribution of this terminal is what will run)
# or `wheels` (ROS 2 comes from PyPI; the two are never mixed), `base_python` and its `identity`.
find_python() {
    mode=wheels
    [ -z "${AMENT_PREFIX_PATH:-}" ] || mode=sourced
    if [ $mode = wheels ]; then
        if [ "${ROS_VERSION:-2}" = 1 ]; then
            fail "ROS 1 (${ROS_DISTRO:-unknown}) is sourced in this terminal and its modules hide" \
                'those of ROS 2; open a terminal in which it is not sourced.'
        fi
        if [ "$(uname -sm)" != 'Linux x86_64' ]; then
            fail "this machine is $(uname -sm), and PyPI has ROS 2 for Linux x86_64 only; install" \
                'ROS 2 (https://docs.ros.org), source it (. /opt/ros/<distribution>/setup.bash)' \
                'and start again.'
        fi
        # Left by a parent that runs in another environment with the ROS 2 wheels.
        [ -z "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ] || unset LD_LIBRARY_PATH
        unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONPATH
        # Of a distribution that is not sourced: PyPI's ROS 2 has Fast DDS alone, and is Jazzy.
        if [[ ${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp} != rmw_fastrtps_cpp ]]; then
            say "RMW_IMPLEMENTATION=$RMW_IMPLEMENTATION is left out: PyPI's ROS 2 has Fast DDS alone."
        fi
        unset RMW_IMPLEMENTATION ROS_DISTRO ROS_VERSION
    fi

    local candidate answer minor ensurepip rclpy seen='' wrong='' no_rclpy='' no_venv='' package=''
    local -a candidates=(python3 python3.13 python3.12 python3.11 python3.10)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        answer=$("$candidate" -c "$PROBE" $mode 2>/dev/null) || continue
        read -r minor ensurepip rclpy identity <<<"$answer"
        [[ $seen != *"|$identity|"* ]] || continue  # python3 and python3.12 may be one
        seen="$seen|$identity|"
        local found="$candidate (${identity%% *})"
        # A Python newer than the wheels is right where its own ROS 2 says so.
        if [ "$minor" -lt $OLDEST ] || { [ $mode = wheels ] && [ "$minor" -gt $NEWEST ]; }; then
            wrong=${wrong:+$wrong, }$found
        elif [ "$rclpy" = no-rclpy ]; then
            no_rclpy=${no_rclpy:+$no_rclpy, }$found
        elif [ "$ensurepip" = no-ensurepip ]; then
            no_venv=${no_venv:+$no_venv, }$found
            package=${package:-python3.$minor-venv}
        else
            base_python=$candidate
            return
        fi
    done

    local needed="Python 3.$OLDEST to 3.$NEWEST"
    if [ -n "$no_venv" ]; then
        fail "$no_venv cannot make virtual environments: the venv module lacks ensurepip; on" \
            "Debian and Ubuntu: sudo apt install python3-venv (or $package)."
    elif [ -n "$no_rclpy" ]; then
        fail "ROS 2 ${ROS_DISTRO:-} is sourced, but $no_rclpy cannot import its rclpy; name the" \
            "Python that ROS 2 was built for (PYTHON=/usr/bin/python3 $0), install" \
            "ros-${ROS_DISTRO:-<distribution>}-rclpy, or start from a terminal in which ROS 2 is" \
            'not sourced: then ROS 2 comes from PyPI.'
    elif [ -n "$wrong" ]; then
        fail "found $wrong, needed is $needed; install one (sudo apt install python3.12" \
            "python3.12-venv, or https://www.python.org) or name one (PYTHON=/path/to/python $0)."
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON is $PYTHON, and no Python starts by that name; needed is $needed."
    fi
    fail "found no Python, needed is $needed; on Debian and Ubuntu:" \
        'sudo apt install python3 python3-venv'
}

# run_logged LOG PURPOSE COMMAND...: shows what the command said only where it fails, and the cause.
run_logged() {
    local log=$1 purpose=$2 cause=''
    shift 2
    "$@" >"$log" 2>&1 && return
    if grep -qiE 'name resolution|NewConnection|Connect(ion)?(Timeout| refused| reset)|ReadTimeout|ProxyError|unreachable|Max retries' "$log"; then
        cause=' The package index was not reached: check the network, or the proxy (https_proxy).'
    elif grep -qi 'no space left' "$log"; then
        cause=' The disk is full.'
    elif grep -qi 'no matching distribution' "$log"; then
        cause=' A package has no build for this Python or system (glibc 2.28 or newer is needed).'
    fi
    tail -n 15 "$log" | sed 's/^/    /' >&2
    fail "could not $purpose.$cause The whole log: $log"
}

# prepare_environment FOLDER EXTRAS [REQUIREMENT...]: makes or renews the virtual environment FOLDER
# with the package, its EXTRAS (and `ros` where no ROS 2 is sourced) and whatever else is required,
# and sets `python`. Where FOLDER is current it takes a fraction of a second.
prepare_environment() {
    local folder=$root/$1 extras=$2 started=$SECONDS stamp made base wanted
    local -a requirements=("${@:3}")
    local -a options=() pins=(--constraint "$root/scripts/constraints.txt")
    find_python
    python=$folder/bin/python
    stamp=$folder/bisenet_ros.stamp
    if [ $mode = wheels ]; then
        extras=ros${extras:+,$extras}
    else
        options=(--system-site-packages)
    fi
    base="$mode ${ROS_DISTRO:-} $identity $root"
    wanted=$base$'\n'"$extras ${requirements[*]} $(cat "$root"/pyproject.toml "$root"/setup.* \
        "$root"/scripts/* | sha256sum)"

    # Two first starts at once: the second waits. The file is only something to lock.
    exec 9<"$root/pyproject.toml"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        say "waiting for another start to finish installing."
        flock 9
    fi
    made=$(cat "$stamp" 2>/dev/null) || made=
    if [ "$made" != "$wanted" ] || [ ! -x "$python" ]; then
        trap 'fail "interrupted; the next start installs anew."' INT TERM
        # An installation that was interrupted has another first line and is made from scratch.
        if [ "${made%%$'\n'*}" != "$base" ] || [ ! -x "$python" ]; then
            if [ ! -f "$stamp" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
                fail "$folder was not made by this script, which needs the name; move it away."
            fi
            rm -rf "$folder"
            mkdir "$folder"
            echo installing >"$stamp"
            run_logged "$folder/install.log" 'make a virtual environment' \
                "$base_python" -m venv "${options[@]}" "$folder"
        fi
        echo installing >"$stamp"
        say "installing into $1, once; this takes a minute or more."
        if [ $mode = sourced ]; then
            pins=()
            # What a distribution built with NumPy 1 does not load beside NumPy 2.
            if "$python" -c 'import numpy; raise SystemExit(numpy.__version__[0] != "1")' 2>/dev/null
            then
                echo 'numpy<2' >"$folder/constraints.txt"
                pins=(--constraint "$folder/constraints.txt")
            fi
        fi
        PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
            run_logged "$folder/install.log" 'install the packages' "$python" -m pip install \
            --no-input "${pins[@]}" "${requirements[@]}" --editable "$root${extras:+[$extras]}"
        run_logged "$folder/install.log" 'import what was installed' \
            "$python" -c 'import bisenet_ros, rclpy, sensor_msgs.msg'
        printf '%s\n' "$wanted" >"$stamp"
        trap - INT TERM
        say "$1 is ready after $((SECONDS - started)) s."
    fi
    exec 9<&-
}
