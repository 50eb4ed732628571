# Completion of dsvl for fish. Put this file into ~/.config/fish/completions/

# Whether the command line is at this command.
function __dsvl_at
    set -l path dsvl
    for word in (commandline -opc)[2..]
        contains -- "$path $word" $__dsvl_commands; and set path "$path $word"
    end
    test "$path" = "$argv[1]"
end

# Offer paths: pictures, files or folders.
function __dsvl_paths
    set -l typed (string replace -r -- '^--[^=]*=' '' (commandline -ct))
    switch $argv[1]
        case folders
            complete -C "'' $typed" | string match -r -- '.*/(?:\t.*)?$'
        case pictures
            complete -C "'' $typed" | string match -r -i -- ".*(?:/|\.(?:$__dsvl_extensions))(?:\t.*)?\$"
        case files
            complete -C "'' $typed"
    end
end

# BEGIN of what generate.py writes
set -g __dsvl_commands 'dsvl' 'dsvl chat' 'dsvl describe' 'dsvl quantize' 'dsvl doctor' 'dsvl sessions' 'dsvl sessions list' 'dsvl sessions show' 'dsvl sessions search' 'dsvl sessions export' 'dsvl sessions rm'
set -g __dsvl_extensions 'jpg|jpeg|jpe|jfif|mpo|png|apng|webp|gif|bmp|tif|tiff|ppm|pgm|pbm|pnm|pfm|ico|avif|jp2|j2k|heic|heif'

function __dsvl_values
    switch $argv[1]
        case overflow
            printf '%s\t%s\n' 'error' ''
            printf '%s\t%s\n' 'drop-oldest' ''
        case model_folders
            printf '%s\t%s\n' 'tiny' 'the model that comes with dsvl'
            printf '%s\t%s\n' '1.3b' 'deepseek-community/deepseek-vl-1.3b-chat'
            printf '%s\t%s\n' '7b' 'deepseek-community/deepseek-vl-7b-chat'
            printf '%s\t%s\n' '1.3b-base' 'deepseek-community/deepseek-vl-1.3b-base'
            printf '%s\t%s\n' '7b-base' 'deepseek-community/deepseek-vl-7b-base'
            __dsvl_paths folders
        case device
            printf '%s\t%s\n' 'auto' ''
            printf '%s\t%s\n' 'cpu' ''
            printf '%s\t%s\n' 'cuda' ''
            printf '%s\t%s\n' 'cuda:0' ''
            printf '%s\t%s\n' 'mps' ''
            printf '%s\t%s\n' 'xpu' ''
        case dtype
            printf '%s\t%s\n' 'auto' ''
            printf '%s\t%s\n' 'bfloat16' ''
            printf '%s\t%s\n' 'float16' ''
            printf '%s\t%s\n' 'float32' ''
        case attn_implementation
            printf '%s\t%s\n' 'auto' ''
            printf '%s\t%s\n' 'eager' ''
            printf '%s\t%s\n' 'sdpa' ''
            printf '%s\t%s\n' 'flash_attention_2' ''
        case device_map
            printf '%s\t%s\n' 'auto' ''
        case quantization
            printf '%s\t%s\n' '4bit' ''
            printf '%s\t%s\n' '8bit' ''
            printf '%s\t%s\n' 'bnb-nf4' ''
            printf '%s\t%s\n' 'bnb-fp4' ''
            printf '%s\t%s\n' 'bnb-int8' ''
            printf '%s\t%s\n' 'torchao-int8' ''
            printf '%s\t%s\n' 'torchao-int8-dynamic' ''
            printf '%s\t%s\n' 'torchao-int4' ''
        case pictures
            __dsvl_paths pictures
        case model
            printf '%s\t%s\n' 'tiny' 'the model that comes with dsvl'
            printf '%s\t%s\n' '1.3b' 'deepseek-community/deepseek-vl-1.3b-chat'
            printf '%s\t%s\n' '7b' 'deepseek-community/deepseek-vl-7b-chat'
            printf '%s\t%s\n' '1.3b-base' 'deepseek-community/deepseek-vl-1.3b-base'
            printf '%s\t%s\n' '7b-base' 'deepseek-community/deepseek-vl-7b-base'
        case files
            __dsvl_paths files
    end
end

complete -c dsvl -f
complete -c dsvl -n "__dsvl_at 'dsvl'" -a chat -d 'Talk about pictures; the conversation is kept.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -a describe -d 'Describe pictures, or answer a question about them.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -a quantize -d 'Write a quantized copy of a model: a folder that transformers loads anywhere.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -a doctor -d 'Show what dsvl finds on this machine and what it would choose.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -a sessions -d 'List, show, search, export and remove the conversations that were kept.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -l version -s V -d 'Show the version.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -l install-completion -d 'Install completion for the current shell.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -l show-completion -d 'Show completion for the current shell, to copy it or customize the installation.'
complete -c dsvl -n "__dsvl_at 'dsvl'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -a '(__dsvl_values pictures)'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l continue -s c -d 'Go on with the last conversation.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l session -x -a '(__dsvl_values text)' -d 'Go on with this one; see dsvl sessions list.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l no-save -d 'Keep nothing on disk.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l overflow -x -a '(__dsvl_values overflow)' -d 'When the context is full: say so, or leave the oldest turns out.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l system -s s -x -a '(__dsvl_values text)' -d 'Replaces the model\'s default system text, as DeepSeek\'s own code does; \'\' leaves it out.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l max-new-tokens -l max-tokens -x -a '(__dsvl_values text)' -d 'Longest answer.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l temperature -l temp -x -a '(__dsvl_values text)' -d '0 always takes the likeliest token; higher is more varied.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l top-p -x -a '(__dsvl_values text)' -d 'Sample among the likeliest tokens that sum to P.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l top-k -x -a '(__dsvl_values text)' -d 'Sample among the K likeliest tokens; 0 is off.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l min-p -x -a '(__dsvl_values text)' -d 'Drop tokens less than P times as likely as the likeliest.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l repetition-penalty -x -a '(__dsvl_values text)' -d 'Above 1 makes repeating less likely.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l seed -x -a '(__dsvl_values text)' -d 'Makes sampling repeatable.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l stop -x -a '(__dsvl_values text)' -d 'End the answer before TEXT; may be repeated.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l model -s m -x -a '(__dsvl_values model_folders)' -d 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny comes with dsvl.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l profile -x -a '(__dsvl_values text)' -d 'A group of settings out of config.toml.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l revision -x -a '(__dsvl_values text)' -d 'Branch, tag or commit of the model on the hub.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l offline -d 'Never open a connection.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l device -x -a '(__dsvl_values device)' -d 'Where to compute.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l dtype -x -a '(__dsvl_values dtype)' -d 'Number format; auto takes a fast one.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l attn-implementation -l attn -x -a '(__dsvl_values attn_implementation)' -d 'Attention backend.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l device-map -x -a '(__dsvl_values device_map)' -d 'auto: spread over several GPUs.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l threads -x -a '(__dsvl_values text)' -d 'CPU threads.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l quantization -x -a '(__dsvl_values quantization)' -d 'Quantize while loading; 4bit and 8bit take the best format of that width.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l group-size -x -a '(__dsvl_values text)' -d 'Weights that share a scale in torchao-int4: 32, 64, 128 or 256.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l include-vision -d 'Quantize the vision towers too; not advised.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l include-head -d 'Quantize the output head too; not advised.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l force -d 'Load even if the memory will probably not do.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l json -d 'One JSON object a line on stdout.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l plain -d 'No colour, no redrawing: for screen readers and logs.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l quiet -s q -d 'No status messages.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l verbose -s v -d 'Say what was chosen (device, dtype, attention) and why.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l debug -d 'Show the traceback of an error.'
complete -c dsvl -n "__dsvl_at 'dsvl chat'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -a '(__dsvl_values pictures)'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l prompt -s p -x -a '(__dsvl_values text)' -d 'What to ask; - reads it from stdin. By default: Describe this image.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l together -d 'Ask once about all pictures, not once a picture.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l system -s s -x -a '(__dsvl_values text)' -d 'Replaces the model\'s default system text, as DeepSeek\'s own code does; \'\' leaves it out.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l max-new-tokens -l max-tokens -x -a '(__dsvl_values text)' -d 'Longest answer.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l temperature -l temp -x -a '(__dsvl_values text)' -d '0 always takes the likeliest token; higher is more varied.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l top-p -x -a '(__dsvl_values text)' -d 'Sample among the likeliest tokens that sum to P.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l top-k -x -a '(__dsvl_values text)' -d 'Sample among the K likeliest tokens; 0 is off.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l min-p -x -a '(__dsvl_values text)' -d 'Drop tokens less than P times as likely as the likeliest.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l repetition-penalty -x -a '(__dsvl_values text)' -d 'Above 1 makes repeating less likely.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l seed -x -a '(__dsvl_values text)' -d 'Makes sampling repeatable.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l stop -x -a '(__dsvl_values text)' -d 'End the answer before TEXT; may be repeated.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l model -s m -x -a '(__dsvl_values model_folders)' -d 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny comes with dsvl.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l profile -x -a '(__dsvl_values text)' -d 'A group of settings out of config.toml.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l revision -x -a '(__dsvl_values text)' -d 'Branch, tag or commit of the model on the hub.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l offline -d 'Never open a connection.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l device -x -a '(__dsvl_values device)' -d 'Where to compute.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l dtype -x -a '(__dsvl_values dtype)' -d 'Number format; auto takes a fast one.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l attn-implementation -l attn -x -a '(__dsvl_values attn_implementation)' -d 'Attention backend.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l device-map -x -a '(__dsvl_values device_map)' -d 'auto: spread over several GPUs.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l threads -x -a '(__dsvl_values text)' -d 'CPU threads.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l quantization -x -a '(__dsvl_values quantization)' -d 'Quantize while loading; 4bit and 8bit take the best format of that width.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l group-size -x -a '(__dsvl_values text)' -d 'Weights that share a scale in torchao-int4: 32, 64, 128 or 256.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l include-vision -d 'Quantize the vision towers too; not advised.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l include-head -d 'Quantize the output head too; not advised.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l force -d 'Load even if the memory will probably not do.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l json -d 'One JSON object a line on stdout.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l no-stream -d 'Print an answer when it is whole.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l stats -d 'Tokens, seconds and memory on stderr.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l plain -d 'No colour, no redrawing: for screen readers and logs.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l quiet -s q -d 'No status messages.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l verbose -s v -d 'Say what was chosen (device, dtype, attention) and why.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l debug -d 'Show the traceback of an error.'
complete -c dsvl -n "__dsvl_at 'dsvl describe'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -a '(__dsvl_values model)'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -a '(__dsvl_values pictures)'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l format -s f -x -a '(__dsvl_values quantization)' -d 'How to store the weights.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l group-size -x -a '(__dsvl_values text)' -d 'Weights that share a scale in torchao-int4: 32, 64, 128 or 256.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l include-vision -d 'Quantize the vision towers too; not advised.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l include-head -d 'Quantize the output head too; not advised.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l overwrite -d 'Replace a model that stands at OUT.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l verify -d 'Open what was written and compare it with the source; exit 1 if damaged.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l revision -x -a '(__dsvl_values text)' -d 'Branch, tag or commit of the model on the hub.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l offline -d 'Never open a connection.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l device -x -a '(__dsvl_values device)' -d 'Where to compute.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l threads -x -a '(__dsvl_values text)' -d 'CPU threads.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l force -d 'Load even if the memory will probably not do.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l json -d 'One JSON object a line on stdout.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l plain -d 'No colour, no redrawing: for screen readers and logs.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l quiet -s q -d 'No status messages.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l verbose -s v -d 'Say what was chosen (device, dtype, attention) and why.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l debug -d 'Show the traceback of an error.'
complete -c dsvl -n "__dsvl_at 'dsvl quantize'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl doctor'" -l profile -x -a '(__dsvl_values text)' -d 'Show the settings with this profile.'
complete -c dsvl -n "__dsvl_at 'dsvl doctor'" -l json -d 'One JSON object a line on stdout.'
complete -c dsvl -n "__dsvl_at 'dsvl doctor'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions'" -a list -d 'List the conversations, the latest first.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions'" -a show -d 'Print a conversation as Markdown.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions'" -a search -d 'Find conversations by what was said in them.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions'" -a export -d 'Write a conversation, its pictures included, to a file.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions'" -a rm -d 'Remove conversations for good.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions list'" -l limit -s n -x -a '(__dsvl_values text)' -d 'Only the last N.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions list'" -l json -d 'One JSON object a line on stdout.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions list'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions show'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions search'" -l json -d 'One JSON object a line on stdout.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions search'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions export'" -a '(__dsvl_values files)'
complete -c dsvl -n "__dsvl_at 'dsvl sessions export'" -l pictures-beside -d 'Write pictures to a folder beside FILE, not into it.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions export'" -l overwrite -d 'Replace FILE if it exists.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions export'" -l help -s h -d 'Show this message and exit.'
complete -c dsvl -n "__dsvl_at 'dsvl sessions rm'" -l help -s h -d 'Show this message and exit.'
# END of what generate.py writes
