# Completion of dsvl for PowerShell, from 5.1 on. docs/completion.md in its repository says where it goes.

# BEGIN of what generate.py writes
$dsvlExtensions = 'jpg|jpeg|jpe|jfif|mpo|png|apng|webp|gif|bmp|tif|tiff|ppm|pgm|pbm|pnm|pfm|ico|avif|jp2|j2k|heic|heif'
$dsvlValues = @{
    overflow = @{ Paths = ''; Words = @(@('error', ''), @('drop-oldest', '')) }
    model_folders = @{ Paths = 'folders'; Words = @(@('tiny', 'the model embedded in dsvl'), @('1.3b', 'deepseek-community/deepseek-vl-1.3b-chat'), @('7b', 'deepseek-community/deepseek-vl-7b-chat'), @('1.3b-base', 'deepseek-community/deepseek-vl-1.3b-base'), @('7b-base', 'deepseek-community/deepseek-vl-7b-base')) }
    device = @{ Paths = ''; Words = @(@('auto', ''), @('cpu', ''), @('cuda', ''), @('cuda:0', ''), @('mps', ''), @('xpu', '')) }
    dtype = @{ Paths = ''; Words = @(@('auto', ''), @('bfloat16', ''), @('float16', ''), @('float32', '')) }
    attn_implementation = @{ Paths = ''; Words = @(@('auto', ''), @('eager', ''), @('sdpa', ''), @('flash_attention_2', '')) }
    device_map = @{ Paths = ''; Words = @(,@('auto', '')) }
    quantization = @{ Paths = ''; Words = @(@('4bit', ''), @('8bit', ''), @('bnb-nf4', ''), @('bnb-fp4', ''), @('bnb-int8', ''), @('torchao-int8', ''), @('torchao-int8-dynamic', ''), @('torchao-int4', ''), @('int8', ''), @('int4', '')) }
    pictures = @{ Paths = 'pictures'; Words = @() }
    files = @{ Paths = 'files'; Words = @() }
    format = @{ Paths = ''; Words = @(@('jsonl', ''), @('csv', ''), @('parquet', ''), @('openai', ''), @('txt', '')) }
    existing = @{ Paths = ''; Words = @(@('skip', ''), @('overwrite', ''), @('append', ''), @('prepend', '')) }
    model = @{ Paths = ''; Words = @(@('tiny', 'the model embedded in dsvl'), @('1.3b', 'deepseek-community/deepseek-vl-1.3b-chat'), @('7b', 'deepseek-community/deepseek-vl-7b-chat'), @('1.3b-base', 'deepseek-community/deepseek-vl-1.3b-base'), @('7b-base', 'deepseek-community/deepseek-vl-7b-base')) }
}
$dsvlCommands = @{
    'dsvl' = @{
        Commands = @(@('chat', 'Talk about pictures; the conversation is kept.'), @('describe', 'Describe pictures, or answer a question about them.'), @('batch', 'Answer about many pictures, and lose nothing: one row a picture, an answer or an error.'), @('quantize', 'Write a quantized copy of a model: a folder that transformers loads anywhere.'), @('doctor', 'Show what dsvl finds on this machine and what it would choose.'), @('sessions', 'List, show, search, export and remove the conversations that were kept.'))
        Arguments = @()
        Options = @(
            @{ Names = @('--version', '-V'); Kind = $null; Repeatable = $False; Help = 'Show the version.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl chat' = @{
        Commands = @()
        Arguments = @('pictures')
        Options = @(
            @{ Names = @('--continue', '-c'); Kind = $null; Repeatable = $False; Help = 'Go on with the last conversation.' }
            @{ Names = @('--session'); Kind = 'text'; Repeatable = $False; Help = 'Go on with this one; see dsvl sessions list.' }
            @{ Names = @('--no-save'); Kind = $null; Repeatable = $False; Help = 'Keep nothing on disk, --cache or not.' }
            @{ Names = @('--overflow'); Kind = 'overflow'; Repeatable = $False; Help = 'When the context is full: say so, or leave the oldest turns out.' }
            @{ Names = @('--system', '-s'); Kind = 'text'; Repeatable = $False; Help = 'Replaces the model''s default system text, as DeepSeek''s own code does; '''' leaves it out.' }
            @{ Names = @('--max-new-tokens', '--max-tokens'); Kind = 'text'; Repeatable = $False; Help = 'Longest answer (at least 1).' }
            @{ Names = @('--temperature', '--temp'); Kind = 'text'; Repeatable = $False; Help = '0 always takes the likeliest token; higher is more varied (between 0 and 100).' }
            @{ Names = @('--top-p'); Kind = 'text'; Repeatable = $False; Help = 'Sample among the likeliest tokens that sum to P (above 0 and at most 1).' }
            @{ Names = @('--top-k'); Kind = 'text'; Repeatable = $False; Help = 'Sample among the K likeliest tokens; 0 is off (at least 0).' }
            @{ Names = @('--min-p'); Kind = 'text'; Repeatable = $False; Help = 'Drop tokens less than P times as likely as the likeliest (between 0 and 1).' }
            @{ Names = @('--repetition-penalty'); Kind = 'text'; Repeatable = $False; Help = 'Above 1 makes repeating less likely (above 0 and at most 100).' }
            @{ Names = @('--seed'); Kind = 'text'; Repeatable = $False; Help = 'Makes sampling repeatable (between 0 and 2^63 - 1).' }
            @{ Names = @('--stop'); Kind = 'text'; Repeatable = $True; Help = 'End the answer before TEXT; may be repeated.' }
            @{ Names = @('--model', '-m'); Kind = 'model_folders'; Repeatable = $False; Help = 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny comes with dsvl.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings out of config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never open a connection.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Where to compute.' }
            @{ Names = @('--dtype'); Kind = 'dtype'; Repeatable = $False; Help = 'Number format; auto takes a fast one.' }
            @{ Names = @('--attn-implementation', '--attn'); Kind = 'attn_implementation'; Repeatable = $False; Help = 'Attention backend.' }
            @{ Names = @('--device-map'); Kind = 'device_map'; Repeatable = $False; Help = 'auto: spread over several GPUs.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (at least 1).' }
            @{ Names = @('--quantization'); Kind = 'quantization'; Repeatable = $False; Help = 'Quantize while loading; 4bit and 8bit take the best format of that width.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights that share a scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision towers too; not advised.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not advised.' }
            @{ Names = @('--cache'); Kind = $null; Repeatable = $False; Help = 'Keep the state of pictures and prompts on disk, for you alone to read: asked again, they cost nothing.' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if the memory will probably not do.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'One JSON object a line on stdout.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour, no redrawing: for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Say what was chosen (device, dtype, attention) and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl describe' = @{
        Commands = @()
        Arguments = @('pictures')
        Options = @(
            @{ Names = @('--prompt', '-p'); Kind = 'text'; Repeatable = $False; Help = 'What to ask; - reads it from stdin. By default: Describe this image.' }
            @{ Names = @('--together'); Kind = $null; Repeatable = $False; Help = 'Ask once about all pictures, not once a picture.' }
            @{ Names = @('--system', '-s'); Kind = 'text'; Repeatable = $False; Help = 'Replaces the model''s default system text, as DeepSeek''s own code does; '''' leaves it out.' }
            @{ Names = @('--max-new-tokens', '--max-tokens'); Kind = 'text'; Repeatable = $False; Help = 'Longest answer (at least 1).' }
            @{ Names = @('--temperature', '--temp'); Kind = 'text'; Repeatable = $False; Help = '0 always takes the likeliest token; higher is more varied (between 0 and 100).' }
            @{ Names = @('--top-p'); Kind = 'text'; Repeatable = $False; Help = 'Sample among the likeliest tokens that sum to P (above 0 and at most 1).' }
            @{ Names = @('--top-k'); Kind = 'text'; Repeatable = $False; Help = 'Sample among the K likeliest tokens; 0 is off (at least 0).' }
            @{ Names = @('--min-p'); Kind = 'text'; Repeatable = $False; Help = 'Drop tokens less than P times as likely as the likeliest (between 0 and 1).' }
            @{ Names = @('--repetition-penalty'); Kind = 'text'; Repeatable = $False; Help = 'Above 1 makes repeating less likely (above 0 and at most 100).' }
            @{ Names = @('--seed'); Kind = 'text'; Repeatable = $False; Help = 'Makes sampling repeatable (between 0 and 2^63 - 1).' }
            @{ Names = @('--stop'); Kind = 'text'; Repeatable = $True; Help = 'End the answer before TEXT; may be repeated.' }
            @{ Names = @('--model', '-m'); Kind = 'model_folders'; Repeatable = $False; Help = 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny comes with dsvl.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings out of config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never open a connection.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Where to compute.' }
            @{ Names = @('--dtype'); Kind = 'dtype'; Repeatable = $False; Help = 'Number format; auto takes a fast one.' }
            @{ Names = @('--attn-implementation', '--attn'); Kind = 'attn_implementation'; Repeatable = $False; Help = 'Attention backend.' }
            @{ Names = @('--device-map'); Kind = 'device_map'; Repeatable = $False; Help = 'auto: spread over several GPUs.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (at least 1).' }
            @{ Names = @('--quantization'); Kind = 'quantization'; Repeatable = $False; Help = 'Quantize while loading; 4bit and 8bit take the best format of that width.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights that share a scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision towers too; not advised.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not advised.' }
            @{ Names = @('--cache'); Kind = $null; Repeatable = $False; Help = 'Keep the state of pictures and prompts on disk, for you alone to read: asked again, they cost nothing.' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if the memory will probably not do.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'One JSON object a line on stdout.' }
            @{ Names = @('--no-stream'); Kind = $null; Repeatable = $False; Help = 'Print an answer when it is whole.' }
            @{ Names = @('--stats'); Kind = $null; Repeatable = $False; Help = 'Tokens, seconds and memory on stderr.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour, no redrawing: for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Say what was chosen (device, dtype, attention) and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl batch' = @{
        Commands = @()
        Arguments = @('pictures')
        Options = @(
            @{ Names = @('--recursive', '-r'); Kind = $null; Repeatable = $False; Help = 'Look into the folders within.' }
            @{ Names = @('--ext'); Kind = 'text'; Repeatable = $True; Help = 'In folders take files of this extension; may be repeated.' }
            @{ Names = @('--follow-links'); Kind = $null; Repeatable = $False; Help = 'Follow links within folders.' }
            @{ Names = @('--column'); Kind = 'text'; Repeatable = $False; Help = 'In Parquet tables take the pictures of this column.' }
            @{ Names = @('--files-from'); Kind = 'files'; Repeatable = $False; Help = 'Read paths from a file, or from stdin with -: one a line, or ended by NULs.' }
            @{ Names = @('--prompt', '-p'); Kind = 'text'; Repeatable = $False; Help = 'What to ask. By default: Describe this image.' }
            @{ Names = @('--prompt-file'); Kind = 'files'; Repeatable = $False; Help = 'Ask what stands there.' }
            @{ Names = @('--ask'); Kind = 'files'; Repeatable = $False; Help = 'Ask several questions, one column each: a TOML file of lines such as colour = "Which colour is it?"' }
            @{ Names = @('--out', '-o'); Kind = 'files'; Repeatable = $False; Help = 'A .jsonl, .csv or .parquet file, a folder for text files, or - for rows on stdout.' }
            @{ Names = @('--format'); Kind = 'format'; Repeatable = $False; Help = 'What OUT is, where its name does not say so; openai is a .jsonl of what OpenAI''s batches give.' }
            @{ Names = @('--existing'); Kind = 'existing'; Repeatable = $False; Help = 'What becomes of text files that are there already; by default skip.' }
            @{ Names = @('--overwrite'); Kind = $null; Repeatable = $False; Help = 'Begin anew, and drop the rows in OUT.' }
            @{ Names = @('--report'); Kind = 'files'; Repeatable = $False; Help = 'Also write a page of thumbnails, answers and errors, in HTML.' }
            @{ Names = @('--batch-size'); Kind = 'text'; Repeatable = $False; Help = 'So many answers at a time; auto takes what the memory bears.' }
            @{ Names = @('--retry-errors'); Kind = $null; Repeatable = $False; Help = 'Do again what failed before.' }
            @{ Names = @('--retry-suspect'); Kind = $null; Repeatable = $False; Help = 'Do again, with other sampling, what looped, was empty, echoed the prompt or was cut.' }
            @{ Names = @('--max-errors'); Kind = 'text'; Repeatable = $False; Help = 'Stop when more than N have failed. A hundred in a row always stop it.' }
            @{ Names = @('--dry-run'); Kind = $null; Repeatable = $False; Help = 'Say what would be done, and do nothing.' }
            @{ Names = @('--check'); Kind = 'files'; Repeatable = $False; Help = 'Only tell which rows of an OUT are stale: picture changed or gone, other prompt or model.' }
            @{ Names = @('--system', '-s'); Kind = 'text'; Repeatable = $False; Help = 'Replaces the model''s default system text, as DeepSeek''s own code does; '''' leaves it out.' }
            @{ Names = @('--max-new-tokens', '--max-tokens'); Kind = 'text'; Repeatable = $False; Help = 'Longest answer (at least 1).' }
            @{ Names = @('--temperature', '--temp'); Kind = 'text'; Repeatable = $False; Help = '0 always takes the likeliest token; higher is more varied (between 0 and 100).' }
            @{ Names = @('--top-p'); Kind = 'text'; Repeatable = $False; Help = 'Sample among the likeliest tokens that sum to P (above 0 and at most 1).' }
            @{ Names = @('--top-k'); Kind = 'text'; Repeatable = $False; Help = 'Sample among the K likeliest tokens; 0 is off (at least 0).' }
            @{ Names = @('--min-p'); Kind = 'text'; Repeatable = $False; Help = 'Drop tokens less than P times as likely as the likeliest (between 0 and 1).' }
            @{ Names = @('--repetition-penalty'); Kind = 'text'; Repeatable = $False; Help = 'Above 1 makes repeating less likely (above 0 and at most 100).' }
            @{ Names = @('--seed'); Kind = 'text'; Repeatable = $False; Help = 'Makes sampling repeatable (between 0 and 2^63 - 1).' }
            @{ Names = @('--stop'); Kind = 'text'; Repeatable = $True; Help = 'End the answer before TEXT; may be repeated.' }
            @{ Names = @('--model', '-m'); Kind = 'model_folders'; Repeatable = $False; Help = 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny comes with dsvl.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings out of config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never open a connection.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Where to compute.' }
            @{ Names = @('--dtype'); Kind = 'dtype'; Repeatable = $False; Help = 'Number format; auto takes a fast one.' }
            @{ Names = @('--attn-implementation', '--attn'); Kind = 'attn_implementation'; Repeatable = $False; Help = 'Attention backend.' }
            @{ Names = @('--device-map'); Kind = 'device_map'; Repeatable = $False; Help = 'auto: spread over several GPUs.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (at least 1).' }
            @{ Names = @('--quantization'); Kind = 'quantization'; Repeatable = $False; Help = 'Quantize while loading; 4bit and 8bit take the best format of that width.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights that share a scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision towers too; not advised.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not advised.' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if the memory will probably not do.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour, no redrawing: for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Say what was chosen (device, dtype, attention) and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl quantize' = @{
        Commands = @()
        Arguments = @('model', 'text', 'pictures')
        Options = @(
            @{ Names = @('--format', '--quantization', '-f'); Kind = 'quantization'; Repeatable = $False; Help = 'How to store the weights.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights that share a scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision towers too; not advised.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not advised.' }
            @{ Names = @('--overwrite'); Kind = $null; Repeatable = $False; Help = 'Replace a model that stands at OUT.' }
            @{ Names = @('--verify'); Kind = $null; Repeatable = $False; Help = 'Open what was written and compare it with the source; exit 1 if damaged.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings out of config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never open a connection.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Where to compute.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (at least 1).' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if the memory will probably not do.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'One JSON object a line on stdout.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour, no redrawing: for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Say what was chosen (device, dtype, attention) and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl doctor' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'Show the settings with this profile.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'One JSON object a line on stdout.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions' = @{
        Commands = @(@('list', 'List the conversations, the latest first.'), @('show', 'Print a conversation as Markdown.'), @('search', 'Find conversations by what was said in them.'), @('export', 'Write a conversation, its pictures included, to a file.'), @('rm', 'Remove conversations for good.'))
        Arguments = @()
        Options = @(
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions list' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--limit', '-n'); Kind = 'text'; Repeatable = $False; Help = 'Only the last N.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'One JSON object a line on stdout.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions show' = @{
        Commands = @()
        Arguments = @('text')
        Options = @(
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions search' = @{
        Commands = @()
        Arguments = @('text')
        Options = @(
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'One JSON object a line on stdout.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions export' = @{
        Commands = @()
        Arguments = @('text', 'files')
        Options = @(
            @{ Names = @('--pictures-beside'); Kind = $null; Repeatable = $False; Help = 'Write pictures to a folder beside FILE, not into it.' }
            @{ Names = @('--overwrite'); Kind = $null; Repeatable = $False; Help = 'Replace FILE if it exists.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions rm' = @{
        Commands = @()
        Arguments = @('text')
        Options = @(
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
}
# END of what generate.py writes

Register-ArgumentCompleter -Native -CommandName dsvl -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    function New-Result([string] $text, [string] $help, [string] $type = 'ParameterValue') {
        if (-not $help) { $help = $text }
        [System.Management.Automation.CompletionResult]::new($text, $text, $type, $help)
    }

    $typed = "$wordToComplete"
    $path = 'dsvl'
    $option = $null
    $ended = $false
    $given = @()
    $position = 0
    $elements = @($commandAst.CommandElements | Select-Object -Skip 1)
    foreach ($element in $elements) {
        $extent = $element.Extent
        if ($extent.StartOffset -ge $cursorPosition) { break }
        if ($typed -and $extent.EndOffset -ge $cursorPosition) { break }
        $word = $extent.Text
        if ($option) {
            $option = $null
        } elseif (-not $ended -and $word -eq '--') {
            $ended = $true
        } elseif (-not $ended -and $word -like '-?*') {
            $name = ($word -split '=', 2)[0]
            $given += $name
            $known = $dsvlCommands[$path].Options | Where-Object { $_.Kind -and $_.Names -ccontains $name }
            if ($known -and $word -notlike '*=*') { $option = $known }
        } elseif ($dsvlCommands.ContainsKey("$path $word")) {
            $path = "$path $word"
        } else {
            $position += 1
        }
    }
    $command = $dsvlCommands[$path]

    $start = ''
    $kind = $null
    if ($option) {
        $kind = $option.Kind
    } elseif (-not $ended -and $typed -match '^(--[^=]+)=(.*)$') {
        $name = $Matches[1]
        $start = "$name="
        $typed = $Matches[2]
        $kind = ($command.Options | Where-Object { $_.Names -ccontains $name }).Kind
    } elseif (-not $ended -and $typed -like '-*') {
        foreach ($known in $command.Options) {
            if (-not $known.Repeatable -and ($known.Names | Where-Object { $given -ccontains $_ })) { continue }
            foreach ($name in $known.Names) {
                if ($name.StartsWith($typed, 'Ordinal')) { New-Result $name $known.Help 'ParameterName' }
            }
        }
        return
    } elseif ($command.Commands) {
        foreach ($child in $command.Commands) {
            if ($child[0].StartsWith($typed, 'Ordinal')) { New-Result $child[0] $child[1] }
        }
        return
    } elseif ($command.Arguments) {
        $kind = $command.Arguments[[Math]::Min($position, $command.Arguments.Count - 1)]
    }
    if (-not $kind -or -not $dsvlValues.ContainsKey($kind)) { return }

    foreach ($pair in $dsvlValues[$kind].Words) {
        if ($pair[0].StartsWith($typed, 'Ordinal')) { New-Result ($start + $pair[0]) $pair[1] }
    }
    $paths = $dsvlValues[$kind].Paths
    if (-not $paths) { return }
    $unquoted = $typed.Trim("'", '"')
    foreach ($found in [System.Management.Automation.CompletionCompleters]::CompleteFilename($unquoted)) {
        $isFolder = $found.ResultType -eq 'ProviderContainer'
        $isPicture = $found.ListItemText -match "\.($dsvlExtensions)$"
        if ($isFolder -or $paths -eq 'files' -or ($paths -eq 'pictures' -and $isPicture)) {
            [System.Management.Automation.CompletionResult]::new(
                $start + $found.CompletionText, $found.ListItemText, $found.ResultType, $found.ToolTip)
        }
    }
}
