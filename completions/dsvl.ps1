# Completion of dsvl for PowerShell, from 5.1 on. docs/completion.md in its repository says where it goes.

# BEGIN of what generate.py writes
$dsvlExtensions = 'jpg|jpeg|jpe|jfif|mpo|png|apng|webp|gif|bmp|tif|tiff|ppm|pgm|pbm|pnm|pfm|ico|icns|avif|jp2|j2k|heic|heif|tga|dds'
$dsvlValues = @{
    sessions = @{ Paths = 'sessions'; Words = @() }
    overflow = @{ Paths = ''; Words = @(@('error', ''), @('drop-oldest', '')) }
    model_folders = @{ Paths = 'folders'; Words = @(@('tiny', 'the model embedded in dsvl'), @('1.3b', 'deepseek-community/deepseek-vl-1.3b-chat'), @('7b', 'deepseek-community/deepseek-vl-7b-chat'), @('1.3b-base', 'deepseek-community/deepseek-vl-1.3b-base'), @('7b-base', 'deepseek-community/deepseek-vl-7b-base')) }
    device = @{ Paths = ''; Words = @(@('auto', ''), @('cpu', ''), @('cuda', ''), @('cuda:0', ''), @('mps', ''), @('xpu', '')) }
    dtype = @{ Paths = ''; Words = @(@('auto', ''), @('bfloat16', ''), @('float16', ''), @('float32', '')) }
    attn_implementation = @{ Paths = ''; Words = @(@('auto', ''), @('eager', ''), @('sdpa', ''), @('flash_attention_2', '')) }
    device_map = @{ Paths = ''; Words = @(,@('auto', '')) }
    quantization = @{ Paths = ''; Words = @(@('4bit', ''), @('8bit', ''), @('bnb-nf4', ''), @('bnb-fp4', ''), @('bnb-int8', ''), @('torchao-int8', ''), @('torchao-int8-dynamic', ''), @('torchao-int4', ''), @('int8', ''), @('int4', '')) }
    pictures = @{ Paths = 'pictures'; Words = @() }
    files = @{ Paths = 'files'; Words = @() }
    format = @{ Paths = ''; Words = @(@('jsonl', ''), @('csv', ''), @('parquet', ''), @('openai', ''), @('imagefolder', ''), @('txt', '')) }
    existing = @{ Paths = ''; Words = @(@('skip', ''), @('overwrite', ''), @('append', ''), @('prepend', '')) }
    model = @{ Paths = ''; Words = @(@('tiny', 'the model embedded in dsvl'), @('1.3b', 'deepseek-community/deepseek-vl-1.3b-chat'), @('7b', 'deepseek-community/deepseek-vl-7b-chat'), @('1.3b-base', 'deepseek-community/deepseek-vl-1.3b-base'), @('7b-base', 'deepseek-community/deepseek-vl-7b-base')) }
    names = @{ Paths = ''; Words = @(@('tiny', 'the model embedded in dsvl'), @('1.3b', 'deepseek-community/deepseek-vl-1.3b-chat'), @('7b', 'deepseek-community/deepseek-vl-7b-chat'), @('1.3b-base', 'deepseek-community/deepseek-vl-1.3b-base'), @('7b-base', 'deepseek-community/deepseek-vl-7b-base')) }
}
$dsvlCommands = @{
    'dsvl' = @{
        Commands = @(@('chat', 'Chat about pictures; the conversation is saved.'), @('describe', 'Describe pictures, or answer a question about them.'), @('batch', 'Ask about many pictures: one row per picture, with an answer or an error.'), @('quantize', 'Write a quantized copy of a model: a folder that transformers can load anywhere.'), @('models', 'List the models that can be named, and whether each would fit; remove downloaded ones.'), @('doctor', 'Show what dsvl finds on this machine, and what it would choose.'), @('config', 'Print an example of config.toml or its path, or open it in your editor.'), @('sessions', 'List, show, search, name, export and remove saved conversations.'))
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
            @{ Names = @('--prompt', '-p'); Kind = 'text'; Repeatable = $False; Help = 'Start with this question about the pictures.' }
            @{ Names = @('--continue', '-c'); Kind = $null; Repeatable = $False; Help = 'Continue the last conversation, with its model and settings.' }
            @{ Names = @('--session'); Kind = 'sessions'; Repeatable = $False; Help = 'Continue this conversation, by its id or name; see dsvl sessions list.' }
            @{ Names = @('--no-save'); Kind = $null; Repeatable = $False; Help = 'Save nothing to disk, not even with --cache.' }
            @{ Names = @('--overflow'); Kind = 'overflow'; Repeatable = $False; Help = 'When the context is full: stop with an error, or drop the oldest turns.' }
            @{ Names = @('--system', '-s'); Kind = 'text'; Repeatable = $False; Help = 'System prompt, in place of the model''s default; '''' for none.' }
            @{ Names = @('--max-new-tokens', '--max-tokens'); Kind = 'text'; Repeatable = $False; Help = 'Maximum length of an answer (at least 1).' }
            @{ Names = @('--temperature', '--temp'); Kind = 'text'; Repeatable = $False; Help = '0 always picks the most likely token; higher values vary more (between 0 and 100).' }
            @{ Names = @('--top-p'); Kind = 'text'; Repeatable = $False; Help = 'Sample from the most likely tokens whose probabilities sum to P (above 0 and at most 1).' }
            @{ Names = @('--top-k'); Kind = 'text'; Repeatable = $False; Help = 'Sample from the K most likely tokens; 0 is off (at least 0).' }
            @{ Names = @('--min-p'); Kind = 'text'; Repeatable = $False; Help = 'Drop tokens less than P times as likely as the most likely one (between 0 and 1).' }
            @{ Names = @('--repetition-penalty'); Kind = 'text'; Repeatable = $False; Help = 'Values above 1 make repetition less likely (above 0 and at most 100).' }
            @{ Names = @('--seed'); Kind = 'text'; Repeatable = $False; Help = 'Seed for reproducible sampling (between 0 and 2^63 - 1).' }
            @{ Names = @('--stop'); Kind = 'text'; Repeatable = $True; Help = 'End the answer before TEXT; may be repeated.' }
            @{ Names = @('--model', '-m'); Kind = 'model_folders'; Repeatable = $False; Help = 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny is built in.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings in config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the Hugging Face Hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never use the network.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Device to run on.' }
            @{ Names = @('--dtype'); Kind = 'dtype'; Repeatable = $False; Help = 'Floating-point format; auto picks a fast one.' }
            @{ Names = @('--attn-implementation', '--attn'); Kind = 'attn_implementation'; Repeatable = $False; Help = 'Attention backend.' }
            @{ Names = @('--device-map'); Kind = 'device_map'; Repeatable = $False; Help = 'auto: spread the model over several GPUs.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (between 1 and the number of CPUs).' }
            @{ Names = @('--quantization'); Kind = 'quantization'; Repeatable = $False; Help = 'Quantize while loading; 4bit and 8bit pick the best format of that width.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights per scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision encoders too; not recommended.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not recommended.' }
            @{ Names = @('--cache'); Kind = $null; Repeatable = $False; Help = 'Cache processed pictures and prompts on disk, readable only by you, so asking again is fast.' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if memory is likely to run out.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour and no redrawing, for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Show what was chosen (device, dtype, attention), and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl describe' = @{
        Commands = @()
        Arguments = @('pictures')
        Options = @(
            @{ Names = @('--prompt', '-p'); Kind = 'text'; Repeatable = $False; Help = 'What to ask; - reads it from stdin. Default: Describe this image.' }
            @{ Names = @('--together'); Kind = $null; Repeatable = $False; Help = 'Ask once about all pictures, not once per picture.' }
            @{ Names = @('--system', '-s'); Kind = 'text'; Repeatable = $False; Help = 'System prompt, in place of the model''s default; '''' for none.' }
            @{ Names = @('--max-new-tokens', '--max-tokens'); Kind = 'text'; Repeatable = $False; Help = 'Maximum length of an answer (at least 1).' }
            @{ Names = @('--temperature', '--temp'); Kind = 'text'; Repeatable = $False; Help = '0 always picks the most likely token; higher values vary more (between 0 and 100).' }
            @{ Names = @('--top-p'); Kind = 'text'; Repeatable = $False; Help = 'Sample from the most likely tokens whose probabilities sum to P (above 0 and at most 1).' }
            @{ Names = @('--top-k'); Kind = 'text'; Repeatable = $False; Help = 'Sample from the K most likely tokens; 0 is off (at least 0).' }
            @{ Names = @('--min-p'); Kind = 'text'; Repeatable = $False; Help = 'Drop tokens less than P times as likely as the most likely one (between 0 and 1).' }
            @{ Names = @('--repetition-penalty'); Kind = 'text'; Repeatable = $False; Help = 'Values above 1 make repetition less likely (above 0 and at most 100).' }
            @{ Names = @('--seed'); Kind = 'text'; Repeatable = $False; Help = 'Seed for reproducible sampling (between 0 and 2^63 - 1).' }
            @{ Names = @('--stop'); Kind = 'text'; Repeatable = $True; Help = 'End the answer before TEXT; may be repeated.' }
            @{ Names = @('--choices'); Kind = 'text'; Repeatable = $False; Help = 'Answer with one of LIST, such as Red,Green,Blue or a file of one a line, and its probability.' }
            @{ Names = @('--yes-no'); Kind = $null; Repeatable = $False; Help = 'Answer with Yes or No, and its probability.' }
            @{ Names = @('--schema'); Kind = 'text'; Repeatable = $False; Help = 'Answer in JSON: a JSON Schema, its file, or ''colour, count int, items list: what is seen''.' }
            @{ Names = @('--samples'); Kind = 'text'; Repeatable = $False; Help = 'Say how far answers disagree, at a temperature of 0.7 unless you set one: answer N times (between 1 and 128).' }
            @{ Names = @('--model', '-m'); Kind = 'model_folders'; Repeatable = $False; Help = 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny is built in.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings in config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the Hugging Face Hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never use the network.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Device to run on.' }
            @{ Names = @('--dtype'); Kind = 'dtype'; Repeatable = $False; Help = 'Floating-point format; auto picks a fast one.' }
            @{ Names = @('--attn-implementation', '--attn'); Kind = 'attn_implementation'; Repeatable = $False; Help = 'Attention backend.' }
            @{ Names = @('--device-map'); Kind = 'device_map'; Repeatable = $False; Help = 'auto: spread the model over several GPUs.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (between 1 and the number of CPUs).' }
            @{ Names = @('--quantization'); Kind = 'quantization'; Repeatable = $False; Help = 'Quantize while loading; 4bit and 8bit pick the best format of that width.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights per scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision encoders too; not recommended.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not recommended.' }
            @{ Names = @('--cache'); Kind = $null; Repeatable = $False; Help = 'Cache processed pictures and prompts on disk, readable only by you, so asking again is fast.' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if memory is likely to run out.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--no-stream'); Kind = $null; Repeatable = $False; Help = 'Print each answer only when it is complete.' }
            @{ Names = @('--stats'); Kind = $null; Repeatable = $False; Help = 'Print tokens, times and memory to stderr.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour and no redrawing, for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Show what was chosen (device, dtype, attention), and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl batch' = @{
        Commands = @()
        Arguments = @('pictures')
        Options = @(
            @{ Names = @('--recursive', '-r'); Kind = $null; Repeatable = $False; Help = 'Search subfolders too.' }
            @{ Names = @('--ext'); Kind = 'text'; Repeatable = $True; Help = 'Take only files with this extension from folders; may be repeated.' }
            @{ Names = @('--all'); Kind = $null; Repeatable = $False; Help = 'Take hidden files, thumbnails and system files in folders too.' }
            @{ Names = @('--exclude'); Kind = 'text'; Repeatable = $True; Help = 'Leave out files and folders with such a name, or path in the folder: ''*_thumb.*''; may be repeated.' }
            @{ Names = @('--follow-links'); Kind = $null; Repeatable = $False; Help = 'Follow symbolic links in folders.' }
            @{ Names = @('--column'); Kind = 'text'; Repeatable = $False; Help = 'The column of a Parquet table that has the pictures.' }
            @{ Names = @('--files-from'); Kind = 'files'; Repeatable = $False; Help = 'Read paths from a file, or - for stdin: one per line, or NUL-terminated.' }
            @{ Names = @('--allow-private-addresses'); Kind = $null; Repeatable = $False; Help = 'Fetch URLs in lists and requests from this machine and its network too.' }
            @{ Names = @('--allow-outside-paths'); Kind = $null; Repeatable = $False; Help = 'Read pictures that requests or a table name outside their own folder.' }
            @{ Names = @('--prompt', '-p'); Kind = 'text'; Repeatable = $False; Help = 'What to ask; {name}, {folder} and {caption} stand for those of each picture. Default: Describe this image.' }
            @{ Names = @('--prompt-file'); Kind = 'files'; Repeatable = $False; Help = 'Read the prompt from a file.' }
            @{ Names = @('--ask'); Kind = 'files'; Repeatable = $False; Help = 'Ask several questions, one column each: a TOML file with lines such as colour = "Which colour is it?"' }
            @{ Names = @('--choices'); Kind = 'text'; Repeatable = $False; Help = 'Answer with one of LIST, such as Red,Green,Blue or a file of one a line, and its probability.' }
            @{ Names = @('--yes-no'); Kind = $null; Repeatable = $False; Help = 'Answer with Yes or No, and its probability.' }
            @{ Names = @('--schema'); Kind = 'text'; Repeatable = $False; Help = 'Answer in JSON: a JSON Schema, its file, or ''colour, count int, items list: what is seen''.' }
            @{ Names = @('--samples'); Kind = 'text'; Repeatable = $False; Help = 'Say how far answers disagree, at a temperature of 0.7 unless you set one: answer N times (between 1 and 128).' }
            @{ Names = @('--min-probability'); Kind = 'text'; Repeatable = $False; Help = 'Mark rows as suspect whose choice is less likely than P.' }
            @{ Names = @('--out', '-o'); Kind = 'files'; Repeatable = $False; Help = 'A .jsonl, .csv or .parquet file, a folder for text files, or - to print rows to stdout.' }
            @{ Names = @('--format'); Kind = 'format'; Repeatable = $False; Help = 'Output format, if not clear from the name; openai is a .jsonl like the results of OpenAI''s Batch API, imagefolder a metadata.jsonl beside the pictures for Hugging Face''s datasets.' }
            @{ Names = @('--bom'); Kind = $null; Repeatable = $False; Help = 'Begin a CSV table with a byte order mark, for Excel to read it as UTF-8.' }
            @{ Names = @('--existing'); Kind = 'existing'; Repeatable = $False; Help = 'What to do with text files that already exist. Default: skip' }
            @{ Names = @('--sidecar'); Kind = 'text'; Repeatable = $False; Help = 'The extension of text files, such as .caption.' }
            @{ Names = @('--prefix'); Kind = 'text'; Repeatable = $False; Help = 'Put this before answers in text files.' }
            @{ Names = @('--suffix'); Kind = 'text'; Repeatable = $False; Help = 'Put this after answers in text files.' }
            @{ Names = @('--separator'); Kind = 'text'; Repeatable = $False; Help = 'Put this between prefix, answer and suffix. Default: a comma and a space.' }
            @{ Names = @('--overwrite'); Kind = $null; Repeatable = $False; Help = 'Start over. The old rows are dropped once the new ones are complete.' }
            @{ Names = @('--report'); Kind = 'files'; Repeatable = $False; Help = 'Also write an HTML page of thumbnails, answers and errors.' }
            @{ Names = @('--batch-size'); Kind = 'text'; Repeatable = $False; Help = 'Answers generated at a time; auto picks what fits in memory.' }
            @{ Names = @('--retry-errors'); Kind = $null; Repeatable = $False; Help = 'Retry what failed before.' }
            @{ Names = @('--retry-suspect'); Kind = $null; Repeatable = $False; Help = 'Retry suspect answers (looping, empty, echoing the prompt, cut off) with other sampling.' }
            @{ Names = @('--retry-stale'); Kind = $null; Repeatable = $False; Help = 'Redo rows whose picture has changed, as --check lists them.' }
            @{ Names = @('--max-errors'); Kind = 'text'; Repeatable = $False; Help = 'Stop after more than N failures. A hundred in a row always stop the run.' }
            @{ Names = @('--dry-run'); Kind = $null; Repeatable = $False; Help = 'Show what would be done, and do nothing.' }
            @{ Names = @('--check'); Kind = 'files'; Repeatable = $False; Help = 'Only list the stale rows of an output: picture changed or missing, other prompt or model.' }
            @{ Names = @('--system', '-s'); Kind = 'text'; Repeatable = $False; Help = 'System prompt, in place of the model''s default; '''' for none.' }
            @{ Names = @('--max-new-tokens', '--max-tokens'); Kind = 'text'; Repeatable = $False; Help = 'Maximum length of an answer (at least 1).' }
            @{ Names = @('--temperature', '--temp'); Kind = 'text'; Repeatable = $False; Help = '0 always picks the most likely token; higher values vary more (between 0 and 100).' }
            @{ Names = @('--top-p'); Kind = 'text'; Repeatable = $False; Help = 'Sample from the most likely tokens whose probabilities sum to P (above 0 and at most 1).' }
            @{ Names = @('--top-k'); Kind = 'text'; Repeatable = $False; Help = 'Sample from the K most likely tokens; 0 is off (at least 0).' }
            @{ Names = @('--min-p'); Kind = 'text'; Repeatable = $False; Help = 'Drop tokens less than P times as likely as the most likely one (between 0 and 1).' }
            @{ Names = @('--repetition-penalty'); Kind = 'text'; Repeatable = $False; Help = 'Values above 1 make repetition less likely (above 0 and at most 100).' }
            @{ Names = @('--seed'); Kind = 'text'; Repeatable = $False; Help = 'Seed for reproducible sampling (between 0 and 2^63 - 1).' }
            @{ Names = @('--stop'); Kind = 'text'; Repeatable = $True; Help = 'End the answer before TEXT; may be repeated.' }
            @{ Names = @('--model', '-m'); Kind = 'model_folders'; Repeatable = $False; Help = 'tiny, 1.3b, 7b, 1.3b-base, 7b-base, a Hugging Face id, or a folder. tiny is built in.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings in config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the Hugging Face Hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never use the network.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Device to run on.' }
            @{ Names = @('--dtype'); Kind = 'dtype'; Repeatable = $False; Help = 'Floating-point format; auto picks a fast one.' }
            @{ Names = @('--attn-implementation', '--attn'); Kind = 'attn_implementation'; Repeatable = $False; Help = 'Attention backend.' }
            @{ Names = @('--device-map'); Kind = 'device_map'; Repeatable = $False; Help = 'auto: spread the model over several GPUs.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (between 1 and the number of CPUs).' }
            @{ Names = @('--quantization'); Kind = 'quantization'; Repeatable = $False; Help = 'Quantize while loading; 4bit and 8bit pick the best format of that width.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights per scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision encoders too; not recommended.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not recommended.' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if memory is likely to run out.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour and no redrawing, for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Show what was chosen (device, dtype, attention), and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl quantize' = @{
        Commands = @()
        Arguments = @('model', 'text', 'pictures')
        Options = @(
            @{ Names = @('--format', '--quantization', '-f'); Kind = 'quantization'; Repeatable = $False; Help = 'Format of the weights.' }
            @{ Names = @('--group-size'); Kind = 'text'; Repeatable = $False; Help = 'Weights per scale in torchao-int4 (one of 32, 64, 128, 256).' }
            @{ Names = @('--include-vision'); Kind = $null; Repeatable = $False; Help = 'Quantize the vision encoders too; not recommended.' }
            @{ Names = @('--include-head'); Kind = $null; Repeatable = $False; Help = 'Quantize the output head too; not recommended.' }
            @{ Names = @('--overwrite'); Kind = $null; Repeatable = $False; Help = 'Replace an existing model in OUT.' }
            @{ Names = @('--verify'); Kind = $null; Repeatable = $False; Help = 'Compare the copy with the source; exit with 1 if it is damaged.' }
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'A group of settings in config.toml.' }
            @{ Names = @('--revision'); Kind = 'text'; Repeatable = $False; Help = 'Branch, tag or commit of the model on the Hugging Face Hub.' }
            @{ Names = @('--offline'); Kind = $null; Repeatable = $False; Help = 'Never use the network.' }
            @{ Names = @('--device'); Kind = 'device'; Repeatable = $False; Help = 'Device to run on.' }
            @{ Names = @('--threads'); Kind = 'text'; Repeatable = $False; Help = 'CPU threads (between 1 and the number of CPUs).' }
            @{ Names = @('--force'); Kind = $null; Repeatable = $False; Help = 'Load even if memory is likely to run out.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--plain'); Kind = $null; Repeatable = $False; Help = 'No colour and no redrawing, for screen readers and logs.' }
            @{ Names = @('--quiet', '-q'); Kind = $null; Repeatable = $False; Help = 'No status messages.' }
            @{ Names = @('--verbose', '-v'); Kind = $null; Repeatable = $False; Help = 'Show what was chosen (device, dtype, attention), and why.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl models' = @{
        Commands = @(@('list', 'List the aliases, the models of the hub cache and of this folder, and the packed weights in dsvl''s cache.'), @('rm', 'Remove downloaded models from the hub cache, or packed weights, after asking.'))
        Arguments = @()
        Options = @(
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl models list' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl models rm' = @{
        Commands = @()
        Arguments = @('names')
        Options = @(
            @{ Names = @('--yes', '-y'); Kind = $null; Repeatable = $False; Help = 'Do not ask; needed where there is no terminal.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl doctor' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--profile'); Kind = 'text'; Repeatable = $False; Help = 'Show the settings under this profile.' }
            @{ Names = @('--measure'); Kind = $null; Repeatable = $False; Help = 'Time the implementations of products on this CPU again, and store the fastest ones.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl config' = @{
        Commands = @(@('example', 'Print a complete config.toml: every setting with its meaning, commented out.'), @('path', 'Print where config.toml is, or would be.'), @('edit', 'Open config.toml in $VISUAL or $EDITOR, and check it afterwards.'))
        Arguments = @()
        Options = @(
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl config example' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl config path' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl config edit' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions' = @{
        Commands = @(@('list', 'List the conversations, most recent first.'), @('show', 'Print a conversation as Markdown.'), @('search', 'Search the text of conversations.'), @('export', 'Write a conversation with its pictures to a file.'), @('rename', 'Name a conversation, or give it another name.'), @('rm', 'Remove conversations permanently, after asking.'))
        Arguments = @()
        Options = @(
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions list' = @{
        Commands = @()
        Arguments = @()
        Options = @(
            @{ Names = @('--limit', '-n'); Kind = 'text'; Repeatable = $False; Help = 'Show only the last N.' }
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions show' = @{
        Commands = @()
        Arguments = @('sessions')
        Options = @(
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions search' = @{
        Commands = @()
        Arguments = @('text')
        Options = @(
            @{ Names = @('--json'); Kind = $null; Repeatable = $False; Help = 'Print one JSON object per line.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions export' = @{
        Commands = @()
        Arguments = @('sessions', 'files')
        Options = @(
            @{ Names = @('--pictures-beside'); Kind = $null; Repeatable = $False; Help = 'Write the pictures to a folder beside FILE instead of embedding them.' }
            @{ Names = @('--overwrite'); Kind = $null; Repeatable = $False; Help = 'Replace FILE if it exists.' }
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions rename' = @{
        Commands = @()
        Arguments = @('sessions', 'text')
        Options = @(
            @{ Names = @('--debug'); Kind = $null; Repeatable = $False; Help = 'Show the traceback of an error.' }
            @{ Names = @('--help', '-h'); Kind = $null; Repeatable = $False; Help = 'Show this message and exit.' }
        )
    }
    'dsvl sessions rm' = @{
        Commands = @()
        Arguments = @('sessions')
        Options = @(
            @{ Names = @('--yes', '-y'); Kind = $null; Repeatable = $False; Help = 'Do not ask; needed where there is no terminal.' }
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
    if ($paths -eq 'sessions') {
        foreach ($line in @(dsvl sessions list --limit 50 2>$null)) {
            $fields = $line -split "`t"
            $title = if ($fields[1]) { $fields[1] } else { $fields[6] }
            if ($fields[0].StartsWith($typed, 'Ordinal')) { New-Result ($start + $fields[0]) ($title -replace '\p{C}', ' ') }
        }
        return
    }
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
