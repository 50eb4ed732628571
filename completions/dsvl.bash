# Completion of dsvl for bash, from 3.2 on; it needs no other package. docs/completion.md in its repository says where it goes.

# BEGIN of what generate.py writes
_dsvl_command() {
    case $1 in
        'dsvl') commands='chat describe batch quantize models doctor config sessions' options='--version,-V --help,-h' ;;
        'dsvl chat') commands='' options='--prompt,-p --continue,-c --session --no-save --overflow --system,-s --max-new-tokens,--max-tokens --temperature,--temp --top-p --top-k --min-p --repetition-penalty --seed +--stop --model,-m --profile --revision --offline --device --dtype --attn-implementation,--attn --device-map --threads --quantization --group-size --include-vision --include-head --cache --force --json --plain --quiet,-q --verbose,-v --debug --help,-h' ;;
        'dsvl describe') commands='' options='--prompt,-p --together --system,-s --max-new-tokens,--max-tokens --temperature,--temp --top-p --top-k --min-p --repetition-penalty --seed +--stop --choices --yes-no --schema --samples --model,-m --profile --revision --offline --device --dtype --attn-implementation,--attn --device-map --threads --quantization --group-size --include-vision --include-head --cache --force --json --no-stream --stats --plain --quiet,-q --verbose,-v --debug --help,-h' ;;
        'dsvl batch') commands='' options='--recursive,-r +--ext --all +--exclude --follow-links --column --files-from --allow-private-addresses --allow-outside-paths --prompt,-p --prompt-file --ask --choices --yes-no --schema --samples --min-probability --out,-o --format --bom --existing --sidecar --prefix --suffix --separator --overwrite --report --batch-size --retry-errors --retry-suspect --retry-stale --max-errors --dry-run --check --system,-s --max-new-tokens,--max-tokens --temperature,--temp --top-p --top-k --min-p --repetition-penalty --seed +--stop --model,-m --profile --revision --offline --device --dtype --attn-implementation,--attn --device-map --threads --quantization --group-size --include-vision --include-head --force --plain --quiet,-q --verbose,-v --debug --help,-h' ;;
        'dsvl quantize') commands='' options='--format,--quantization,-f --group-size --include-vision --include-head --overwrite --verify --profile --revision --offline --device --threads --force --json --plain --quiet,-q --verbose,-v --debug --help,-h' ;;
        'dsvl models') commands='list rm' options='--json --debug --help,-h' ;;
        'dsvl models list') commands='' options='--json --debug --help,-h' ;;
        'dsvl models rm') commands='' options='--yes,-y --debug --help,-h' ;;
        'dsvl doctor') commands='' options='--profile --measure --json --debug --help,-h' ;;
        'dsvl config') commands='example path edit' options='--help,-h' ;;
        'dsvl config example') commands='' options='--debug --help,-h' ;;
        'dsvl config path') commands='' options='--debug --help,-h' ;;
        'dsvl config edit') commands='' options='--debug --help,-h' ;;
        'dsvl sessions') commands='list show search export rename rm' options='--help,-h' ;;
        'dsvl sessions list') commands='' options='--limit,-n --json --debug --help,-h' ;;
        'dsvl sessions show') commands='' options='--debug --help,-h' ;;
        'dsvl sessions search') commands='' options='--json --debug --help,-h' ;;
        'dsvl sessions export') commands='' options='--pictures-beside --overwrite --debug --help,-h' ;;
        'dsvl sessions rename') commands='' options='--debug --help,-h' ;;
        'dsvl sessions rm') commands='' options='--yes,-y --debug --help,-h' ;;
    esac
}

_dsvl_kind() {
    case $1 in
        'dsvl chat|--prompt' | 'dsvl chat|-p' | 'dsvl chat|--system' | 'dsvl chat|-s' | 'dsvl chat|--max-new-tokens' | 'dsvl chat|--max-tokens' | 'dsvl chat|--temperature' | 'dsvl chat|--temp' | 'dsvl chat|--top-p' | 'dsvl chat|--top-k' | 'dsvl chat|--min-p' | 'dsvl chat|--repetition-penalty' | 'dsvl chat|--seed' | 'dsvl chat|--stop' | 'dsvl chat|--profile' | 'dsvl chat|--revision' | 'dsvl chat|--threads' | 'dsvl chat|--group-size' | 'dsvl describe|--prompt' | 'dsvl describe|-p' | 'dsvl describe|--system' | 'dsvl describe|-s' | 'dsvl describe|--max-new-tokens' | 'dsvl describe|--max-tokens' | 'dsvl describe|--temperature' | 'dsvl describe|--temp' | 'dsvl describe|--top-p' | 'dsvl describe|--top-k' | 'dsvl describe|--min-p' | 'dsvl describe|--repetition-penalty' | 'dsvl describe|--seed' | 'dsvl describe|--stop' | 'dsvl describe|--choices' | 'dsvl describe|--schema' | 'dsvl describe|--samples' | 'dsvl describe|--profile' | 'dsvl describe|--revision' | 'dsvl describe|--threads' | 'dsvl describe|--group-size' | 'dsvl batch|--ext' | 'dsvl batch|--exclude' | 'dsvl batch|--column' | 'dsvl batch|--prompt' | 'dsvl batch|-p' | 'dsvl batch|--choices' | 'dsvl batch|--schema' | 'dsvl batch|--samples' | 'dsvl batch|--min-probability' | 'dsvl batch|--sidecar' | 'dsvl batch|--prefix' | 'dsvl batch|--suffix' | 'dsvl batch|--separator' | 'dsvl batch|--batch-size' | 'dsvl batch|--max-errors' | 'dsvl batch|--system' | 'dsvl batch|-s' | 'dsvl batch|--max-new-tokens' | 'dsvl batch|--max-tokens' | 'dsvl batch|--temperature' | 'dsvl batch|--temp' | 'dsvl batch|--top-p' | 'dsvl batch|--top-k' | 'dsvl batch|--min-p' | 'dsvl batch|--repetition-penalty' | 'dsvl batch|--seed' | 'dsvl batch|--stop' | 'dsvl batch|--profile' | 'dsvl batch|--revision' | 'dsvl batch|--threads' | 'dsvl batch|--group-size' | 'dsvl quantize|--group-size' | 'dsvl quantize|--profile' | 'dsvl quantize|--revision' | 'dsvl quantize|--threads' | 'dsvl quantize|2' | 'dsvl doctor|--profile' | 'dsvl sessions list|--limit' | 'dsvl sessions list|-n') kind=text ;;
        'dsvl chat|--session' | 'dsvl sessions show|1' | 'dsvl sessions export|1' | 'dsvl sessions rename|1') kind=sessions ;;
        'dsvl chat|--overflow') kind=overflow ;;
        'dsvl chat|--model' | 'dsvl chat|-m' | 'dsvl describe|--model' | 'dsvl describe|-m' | 'dsvl batch|--model' | 'dsvl batch|-m') kind=model_folders ;;
        'dsvl chat|--device' | 'dsvl describe|--device' | 'dsvl batch|--device' | 'dsvl quantize|--device') kind=device ;;
        'dsvl chat|--dtype' | 'dsvl describe|--dtype' | 'dsvl batch|--dtype') kind=dtype ;;
        'dsvl chat|--attn-implementation' | 'dsvl chat|--attn' | 'dsvl describe|--attn-implementation' | 'dsvl describe|--attn' | 'dsvl batch|--attn-implementation' | 'dsvl batch|--attn') kind=attn_implementation ;;
        'dsvl chat|--device-map' | 'dsvl describe|--device-map' | 'dsvl batch|--device-map') kind=device_map ;;
        'dsvl chat|--quantization' | 'dsvl describe|--quantization' | 'dsvl batch|--quantization' | 'dsvl quantize|--format' | 'dsvl quantize|--quantization' | 'dsvl quantize|-f') kind=quantization ;;
        'dsvl batch|--files-from' | 'dsvl batch|--prompt-file' | 'dsvl batch|--ask' | 'dsvl batch|--out' | 'dsvl batch|-o' | 'dsvl batch|--report' | 'dsvl batch|--check' | 'dsvl sessions export|2') kind=files ;;
        'dsvl batch|--format') kind=format ;;
        'dsvl batch|--existing') kind=existing ;;
        'dsvl quantize|1') kind=model ;;
        'dsvl sessions search|'[0-9]* | 'dsvl sessions rename|'[0-9]*) kind=text ;;
        'dsvl sessions rm|'[0-9]*) kind=sessions ;;
        'dsvl chat|'[0-9]* | 'dsvl describe|'[0-9]* | 'dsvl batch|'[0-9]* | 'dsvl quantize|'[0-9]*) kind=pictures ;;
        'dsvl models rm|'[0-9]*) kind=names ;;
        *) return 1 ;;
    esac
}

_dsvl_values() {
    case $1 in
        sessions) values='' paths=sessions ;;
        overflow) values='error drop-oldest' paths= ;;
        model_folders) values='tiny 1.3b 7b 1.3b-base 7b-base' paths=folders ;;
        device) values='auto cpu cuda cuda:0 mps xpu' paths= ;;
        dtype) values='auto bfloat16 float16 float32' paths= ;;
        attn_implementation) values='auto eager sdpa flash_attention_2' paths= ;;
        device_map) values='auto' paths= ;;
        quantization) values='4bit 8bit bnb-nf4 bnb-fp4 bnb-int8 torchao-int8 torchao-int8-dynamic torchao-int4 int8 int4' paths= ;;
        pictures) values='' paths=pictures ;;
        files) values='' paths=files ;;
        format) values='jsonl csv parquet openai imagefolder txt' paths= ;;
        existing) values='skip overwrite append prepend' paths= ;;
        model) values='tiny 1.3b 7b 1.3b-base 7b-base' paths= ;;
        names) values='tiny 1.3b 7b 1.3b-base 7b-base' paths= ;;
        *) values='' paths='' ;;
    esac
}

_dsvl_is_picture() {
    case $1 in
        *.[jJ][pP][gG] | *.[jJ][pP][eE][gG] | *.[jJ][pP][eE] | *.[jJ][fF][iI][fF] | *.[mM][pP][oO] | *.[pP][nN][gG] | *.[aA][pP][nN][gG] | *.[wW][eE][bB][pP] | *.[gG][iI][fF] | *.[bB][mM][pP] | *.[tT][iI][fF] | *.[tT][iI][fF][fF] | *.[pP][pP][mM] | *.[pP][gG][mM] | *.[pP][bB][mM] | *.[pP][nN][mM] | *.[pP][fF][mM] | *.[iI][cC][oO] | *.[iI][cC][nN][sS] | *.[aA][vV][iI][fF] | *.[jJ][pP]2 | *.[jJ]2[kK] | *.[hH][eE][iI][cC] | *.[hH][eE][iI][fF] | *.[tT][gG][aA] | *.[dD][dD][sS]) ;;
        *) return 1 ;;
    esac
}
# END of what generate.py writes

_dsvl() {
    local IFS=$' \t\n' command=dsvl commands options kind values paths
    local given=' ' option='' start='' ended='' position=1 i word names path raw typed prefix
    local words=()
    COMPREPLY=()

    # Readline splits words at = and : too; put them together again.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 0 && -n $word && ($word == [=:] || ${COMP_WORDS[i - 1]} == [=:]) ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
    done
    typed=${words[${#words[@]} - 1]}
    # Readline keeps what stands before its own last word, so no answer may repeat that.
    raw=${COMP_WORDS[COMP_CWORD]}
    [[ $raw == [=:] ]] && raw=''
    prefix=${typed%"$raw"}

    for ((i = 0; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        _dsvl_command "$command"
        if [[ -n $option ]]; then
            option=''
        elif [[ -z $ended && $word == -- ]]; then
            ended=yes
        elif [[ -z $ended && $word == -?* ]]; then
            given+="${word%%=*} "
            [[ $word != *=* ]] && _dsvl_kind "$command|$word" && option=$word
        elif [[ -n $word && " $commands " == *" $word "* ]]; then
            command+=" $word"
        else
            position=$((position + 1))
        fi
    done
    _dsvl_command "$command"

    if [[ -z $option && -z $ended && $typed == --*=* ]]; then
        option=${typed%%=*}
        start=$option=
        typed=${typed#*=}
    elif [[ -z $option && -z $ended && $typed == -* ]]; then
        _dsvl_offer_options
        return
    fi
    if _dsvl_kind "$command|${option:-$position}"; then
        _dsvl_values "$kind"
        _dsvl_offer $values
        case $paths in
            '') ;;
            sessions) _dsvl_offer_sessions ;;
            *) _dsvl_offer_paths ;;
        esac
    elif [[ -n $commands ]]; then
        _dsvl_offer $commands
    elif [[ -z $option ]]; then
        _dsvl_offer_options
    fi
}

# The functions below work on the variables of _dsvl.

_dsvl_offer() {
    for word in "$@"; do
        if [[ $word == "$typed"* ]]; then
            word=$start$word
            COMPREPLY+=("${word#"$prefix"}")
        fi
    done
}

_dsvl_offer_options() {
    for names in $options; do
        if [[ $names != +* ]]; then
            for word in ${names//,/ }; do
                [[ $given == *" $word "* ]] && continue 2
            done
        fi
        names=${names#+}
        _dsvl_offer ${names//,/ }
    done
}

_dsvl_offer_paths() {
    typed=${typed#[\"\']}
    typed=${typed//\\/}
    while IFS= read -r path; do
        if [[ $paths == files || -d ${path/#\~\//$HOME/} ]] || { [[ $paths == pictures ]] && _dsvl_is_picture "$path"; }; then
            path=$start$path
            COMPREPLY+=("${path#"$prefix"}")
        fi
    done < <(compgen -f -- "$typed")
}

# Titles are shown beside the ids unless there is only one.
_dsvl_offer_sessions() {
    local title found=()
    while IFS=$'\t' read -r word title; do
        [[ $word == "$typed"* ]] && found+=("$start$word  ${title//\// }")
    done < <(dsvl sessions list --limit 50 2>/dev/null | awk -F'\t' '
        { title = $2 == "" ? $7 : $2; gsub(/[[:cntrl:]]/, " ", title); print $1 "\t" title }')
    [[ ${#found[@]} -eq 1 ]] && found=("${found[0]%%  *}")
    for word in "${found[@]}"; do
        COMPREPLY+=("${word#"$prefix"}")
    done
}

complete -o filenames -F _dsvl dsvl
