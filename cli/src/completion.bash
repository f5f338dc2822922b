
# Names of VMs where a command takes one.
_tapvisor_and_names() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} names=
    case ${COMP_WORDS[1]}:$before in
    *:--grace | *:--file | *:--output | *:-o | *:--port | explain:-p | rm:-f) ;;
    console:* | explain:* | logs:* | pause:* | restart:* | rm:* | start:* | stop:* | unpause:*) names=yes ;;
    esac
    if [[ $COMP_CWORD -gt 1 && -n $names && $word != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(tapvisor names 2>/dev/null)" -- "$word")
    else
        _tapvisor "$@"
    fi
}
complete -F _tapvisor_and_names -o bashdefault -o default tapvisor
