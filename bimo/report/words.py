"""What the report card says in two languages: English as the run recorded it, and the same sentence in Chinese."""

from __future__ import annotations

import re
from typing import NamedTuple


class Said(NamedTuple):
    """The same words in both languages."""

    en: str
    zh: str


# What plan, split, readers and hooks write into a lineage, and how it is said in Chinese. A sentence that is not
# here is shown as it is; tests/report/test_words.py finds those that the plan can write.
PHRASES = (
    # plan
    (r"(?:measured on )?a small model's matmuls?, GFLOP/s: (.+)", "按小模型矩阵乘法实测选定，GFLOP/s：{0}"),
    (r"what this machine offers", "本机可用的线程数"),
    (r"the best one present", "本机最好的计算设备"),
    (r"not stable on this device", "在此设备上尚不稳定"),
    (r"there is no C\+\+ compiler on this machine", "本机没有 C++ 编译器"),
    (r"compiling does not pay within (\S+) s of training", "训练仅 {0} 秒，编译得不偿失"),
    (
        r"all between the matrix products in one pass each; compiled in a second",
        "矩阵乘法之间的运算各合为一遍，编译只需一秒",
    ),
    (r"the kernels are faster, and are there at once", "内核更快，且随时可用"),
    (r"they are written for the Llama family on a CPU", "内核只为 CPU 上的 Llama 系列编写"),
    (r"the layers are compiled instead", "改为编译各层"),
    (r"The fast kernels need a C compiler\. .*", "快速内核需要 C 编译器，本机没有"),
    (r"The C compiler (\S+) cannot compile .*", "C 编译器 {0} 无法编译内核"),
    (r"fused layers earn back the time of compiling them", "融合后的层能赚回编译所花的时间"),
    (r"for (\S+) MB of training text and this budget", "训练文本有 {0} MB，按此预算选择"),
    (r"fewest predicted bits per byte for this time", "在这段时间内，预计每字节比特数最少"),
    (r"the largest that (\S+) million tokens fill", "{0} 百万个词元足以训练的最大规模"),
    (r"reaches (\S+) bits per byte soonest", "最快达到每字节 {0} 比特"),
    (r"larger models would learn next to nothing more from this much text", "文本只有这么多，更大的模型几乎学不到更多"),
    (r"reading the text more than (\S+) times would teach next to nothing", "文本读过 {0} 遍以上，几乎学不到更多"),
    (r"goes with width (\d+)", "与宽度 {0} 相配"),
    (r"heads of 64 or so", "每个注意力头约 64 维"),
    (r"sharing key/value heads only pays in long contexts", "只有长上下文才值得共享键值头"),
    (r"8/3 of the width, in whole 64s", "宽度的 8/3，取 64 的整数倍"),
    (r"4 times the width", "宽度的 4 倍"),
    (r"longer contexts cost more than they teach here", "此处更长的上下文得不偿失"),
    (r"as in GPT-2", "与 GPT-2 相同"),
    (r"two matrices learn faster, and both are small", "两个矩阵学得更快，而且都不大"),
    (r"starts at the word pairs of the text", "从文本中相邻词元的统计开始"),
    (r"word pairs need two embeddings and a small vocabulary", "相邻词元统计需要两个嵌入矩阵和小词表"),
    (r"fewer leave a GPU idle", "再少，GPU 就闲着"),
    (r"small batches make more steps of the same text", "批次小，同样的文本能走更多步"),
    (r"(\S+) s at (\S+) ms a step", "{0} 秒，每步 {1} 毫秒"),
    (
        r"(\S+) s at (\S+) ms a step, (\S+) more for validation and records",
        "{0} 秒，每步 {1} 毫秒，另加 {2} 用于验证与记录",
    ),
    (r"(\S+)-tokens in batches of (\S+) tokens", "{0} 个词元，每批 {1} 个"),
    (r"(\S+)-epochs in batches of (\S+) tokens", "{0} 轮，每批 {1} 个词元"),
    (r"(\S+) in batches of (\S+) tokens", "{0}，每批 {1} 个词元"),
    (r"the text is read (\S+) times", "文本共读 {0} 遍"),
    (r"about (\d+) validations in all, at least (\d+) steps apart", "全程约验证 {0} 次，至少相隔 {1} 步"),
    (r"at most (\S+) s are lost to a crash", "崩溃时最多损失 {0} 秒"),
    # intervals
    (r"(\S+) blocks of (\S+) tokens", "{0} 段，每段 {1} 个词元"),
    (r"(\S+) documents", "{0} 篇文档"),
    # events
    (
        r"step (\d+): the machine is slower than planned; training is shortened from (\d+) to (\d+) steps",
        "第 {0} 步：机器比预计的慢，训练由 {1} 步缩短为 {2} 步",
    ),
    (
        r"step (\d+): the machine is faster than planned; training is lengthened from (\d+) to (\d+) steps",
        "第 {0} 步：机器比预计的快，训练由 {1} 步延长为 {2} 步",
    ),
    (r"the layers could not be compiled", "各层未能编译"),
    (r"interrupted after step (\d+)", "在第 {0} 步之后中断"),
    (r"resumed after step (\d+)", "从第 {0} 步之后继续"),
    (
        r"step (\d+): stopped early, validation has not improved since step (\d+)",
        "第 {0} 步：提前停止，自第 {1} 步起验证不再改善",
    ),
    (
        r"step (\d+): stopped early, pruned, worse than the median of the other trials",
        "第 {0} 步：提前停止，剪枝，比其他试验的中位数差",
    ),
    (r"step (\d+): stopped early, the budget of the sweep is used up", "第 {0} 步：提前停止，搜索的预算已用完"),
    # sweeps
    (r"after (\S+) of its budget", "用了预算的 {0}"),
    (r"validation has not improved since step (\d+)", "自第 {0} 步起验证不再改善"),
    (r"the budget of the sweep is used up", "搜索的预算已用完"),
    (r"every combination has been tried", "所有组合都已试过"),
    (
        r"Training diverged at step (\d+): the (loss|gradient) is not finite\. Got NaN or infinity(?:.*)",
        "训练在第 {0} 步发散：{1}不是有限值",
    ),
    (r"The budget (\S+) is too short to train anything here\. Got (.+)\.", "预算 {0} 太短，无法训练：{1}"),
    (r"The model's shape is impossible\. Got (.+)\.", "模型的形状不可能：{0}"),
    (
        r"step (\d+): Training diverged at step \d+: the (loss|gradient) is not finite\.",
        "第 {0} 步：训练发散，{1}不是有限值",
    ),
    # held-out text
    (
        r"(\d+) documents?, the largest with (\S+) of the text: cut into sections of at most (\S+) characters, "
        r"so that some can be held out\.",
        "共 {0} 篇文档，最大的一篇占全文的 {1}：已切成每段至多 {2} 个字符，以便留出一部分。",
    ),
    # skipped files
    (r"binary file", "二进制文件"),
    (r"empty", "空文件"),
    (r"empty \((.+)\)", "空记录（{0}）"),
    (r"not JSON \((.+)\)", "不是 JSON（{0}）"),
    (r"not a regular file", "不是普通文件"),
    (r"unknown suffix (.*)", "未知的后缀 {0}"),
    (r"the same file as (.+)", "与 {0} 是同一文件"),
    (r"cannot be (?:opened|listed): (.+)", "无法打开：{0}"),
    (r"bimo does not read (\S+) yet: convert it to \.txt", "bimo 尚不能读取 {0}：请转换为 .txt"),
    (r"prepared text inside a folder: name it by its own path", "文件夹中已准备好的文本：请用它自己的路径指定"),
    (r"larger than 64 MB \((.+)\)", "超过 64 MB（{0}）"),
    (r"line (\d+) is larger than 64 MB", "第 {0} 行超过 64 MB"),
    (r"fewer fields than the header \((.+)\)", "字段少于表头（{0}）"),
    (r"not (\S+) \((.+)\): convert it or pass (.+)", "不是 {0}（{1}）：请转换编码，或使用 {2}"),
    (r"cut short: the compressed data end too early", "压缩数据不完整"),
    (r"damaged or unreadable: (.+)", "已损坏或无法读取：{0}"),
    (r"damaged Parquet file: (.+)", "Parquet 文件已损坏：{0}"),
    (r"reading it needs pyarrow: (.+)", "读取它需要 pyarrow：{0}"),
    # baselines, kinds of models and licences
    (r"n-gram of order (\d+)", "{0} 元语法（n-gram）"),
    (r"this model", "本模型"),
    (r"before tuning", "微调之前"),
    (r"majority", "最常见的答案"),
    (r"TF-IDF \+ logistic regression", "TF-IDF + 逻辑回归"),
    (r"translation memory", "翻译记忆（最相近的已知译文）"),
    (r"dictionary, word by word", "逐词查词典"),
    (r"dictionary, character by character", "逐字查词典"),
    (r"first sentence", "首句"),
    (r"sentence nearest to the question", "与问题最相近的句子"),
    (r"answer to the nearest question", "最相近问题的答案"),
    (r"base model", "基础模型"),
    (r"public domain", "公有领域"),
    (r"public domain in the USA", "在美国属公有领域"),
)
FAMILIES = {"qwen3": "Qwen3", "llama": "Llama", "gpt2": "GPT-2"}
NAMES = {"loss": "损失", "gradient": "梯度"}
SHARES = ((3600, 60, "h", "min", "小时", "分"), (60, 1, "min", "s", "分", "秒"))


def translated(sentence: str, phrases: tuple[tuple[str, str], ...] = PHRASES) -> Said:
    """A sentence that bimo wrote into a lineage, in both languages; one that is not known stays as it is."""
    for pattern, chinese in phrases:
        if found := re.fullmatch(pattern, sentence):
            return Said(sentence, chinese.format(*(NAMES.get(group, group) for group in found.groups())))
    return Said(sentence, sentence)


def duration(seconds: float | None) -> Said:
    """``3 min 20 s``, or a dash where there is no number."""
    if seconds is None:
        return Said("–", "–")
    for unit, part, large, small, large_zh, small_zh in SHARES:
        if round(seconds) >= unit:
            whole, rest = divmod(round(seconds), unit)
            rest //= part
            return Said(
                f"{whole:,} {large}" + (f" {rest} {small}" if rest else ""),
                f"{whole:,} {large_zh}" + (f" {rest} {small_zh}" if rest else ""),
            )
    shown = f"{seconds:.1f}" if seconds < 59.5 else f"{seconds:.0f}"
    return Said(f"{shown} s", f"{shown} 秒")


def clock(seconds: float | None) -> str:
    """``3:20`` or ``1:02:05``, empty where there is no number."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
