. "$SHIMS/tidegate.sh"

handle() {
    echo stray
    case $(cat) in
        *'"body":"later"'*) exit 75 ;;
        *'"body":"never"'*) exit 65 ;;
        *'"body":"fail"'*) echo why >&2 && return 3 ;;
    esac
}

serve handle
