"""What the page of a ledger says in two languages: the steps, and the reasons and evidence that they give."""

from __future__ import annotations

from bimo.report.words import PHRASES, Said, translated

# The name of a step, and what it does.
STEPS = {
    "read": (Said("Reading", "读取"), Said("files become documents", "文件变成文档")),
    "pages": (Said("Pages", "合并页面"), Said("a PDF's pages made one text", "PDF 各页合为一文")),
    "normalise": (Said("Normalise", "规范字符"), Said("regular Unicode, repaired mojibake", "统一 Unicode，修复乱码")),
    "boilerplate": (Said("Boilerplate", "去除套话"), Said("menus, banners, licences", "菜单、横幅、许可声明")),
    "gutenberg": (Said("Gutenberg", "古登堡文头"), Said("what surrounds its books", "书籍前后的附加文字")),
    "unwrap": (Said("Unwrap", "接合断行"), Said("a paragraph in one line", "每段合为一行")),
    "script": (Said("Script", "繁简转换"), Said("Chinese in one script", "统一汉字字形")),
    "language": (Said("Language", "语种识别"), Said("which language it is in", "判断文档的语言")),
    "quality": (Said("Quality", "质量"), Said("does it read like text", "读起来是否像文章")),
    "repetition": (Said("Repetition", "重复"), Said("what repeats itself", "自我重复的文本")),
    "perplexity": (Said("Perplexity", "困惑度"), Said("unlike the reference", "与参考文本相差太远")),
    "toxicity": (Said("Toxicity", "毒性"), Said("toxic and profane text", "有毒与粗俗的文本")),
    "pii": (Said("Personal data", "个人信息"), Said("addresses, numbers, keys", "地址、号码、密钥")),
    "decontaminate": (Said("Evaluation text", "评测文本"), Said("what models are measured on", "用于评测模型的文本")),
    "duplicates": (Said("Duplicates", "去重"), Said("the best copy is kept", "保留最好的一份")),
    "mix": (Said("Mixture", "混合"), Said("how often inputs are read", "各来源读几遍")),
}
REASONS = (
    # reading and the pipeline
    (r"unknown suffix (\S+)", "未知的后缀 {0}"),
    (r"not JSON", "不是 JSON"),
    (r"empty", "空记录"),
    (r"(.+) \((\d+) records, first (.+)\)", "{0}（{1} 条，首条：{2}）"),
    (r"fewer fields than the header", "字段少于表头"),
    (r"larger than 64 MB", "超过 64 MB"),
    (r"its encoding cannot be told: .+", "无法判断其编码"),
    (r"a decompression bomb: it expands more than (\S+) times", "解压炸弹：膨胀超过 {0} 倍"),
    (r"the process that read it died", "读取它的进程意外终止"),
    (r"nothing left", "什么也没剩下"),
    (r"of (\S+) bytes", "原有 {0} 字节"),
    (r"other reasons", "其他原因"),
    # quality and repetition
    (r"too few words", "词太少"),
    (r"too many words", "词太多"),
    (r"too few words with letters", "含字母的词太少"),
    (r"words too short", "词太短"),
    (r"words too long", "词太长"),
    (r"too many hash signs", "井号太多"),
    (r"too many ellipses", "省略号太多"),
    (r"too many bullet lines", "列表行太多"),
    (r"too many lines end in an ellipsis", "以省略号结尾的行太多"),
    (r"too few stop words", "常用虚词太少"),
    (r"placeholder text", "占位文本"),
    (r"curly brackets", "花括号"),
    (r"too few sentences", "句子太少"),
    (r"too few lines end in punctuation", "以标点结尾的行太少"),
    (r"too many short lines", "短行太多"),
    (r"a list", "清单"),
    (r"repeated lines", "重复的行"),
    (r"repeated paragraphs", "重复的段落"),
    (r"repeated phrases", "重复的短语"),
    (r"one phrase again and again", "同一短语反复出现"),
    (r"(\w+): (\S+), expected at least (\S+)", "{0}：{1}，应不少于 {2}"),
    (r"(\w+): (\S+), expected at most (\S+)", "{0}：{1}，应不多于 {2}"),
    # other steps
    (r"another language", "其他语言"),
    (r"unlike the reference", "与参考文本相差太远"),
    (r"(\S+) bits a byte, expected at most (\S+)", "每字节 {0} 比特，应不多于 {1}"),
    (r"toxic", "有毒"),
    (r"personal data", "个人信息"),
    (r"evaluation text", "评测文本"),
    (r"exact duplicate", "完全重复"),
    (r"near duplicate", "近似重复"),
    (r"same text as (.+)", "与 {0} 文本相同"),
    (r"(\S+%) similar to (.+)", "与 {1} 相似 {0}"),
    (r"not in the mixture", "未进入混合"),
    (r"its input is read less than once", "其来源读不满一遍"),
    (r"(\S+) documents share a passage but are not similar", "{0} 篇文档有同一段落，但并不相似"),
    (r"(\S+) documents are joined by similar ones between them", "{0} 篇文档由其间相似者相连"),
)
LANGUAGES = {
    "": Said("not determined", "未判定"),
    "en": Said("English", "英语"),
    "zh": Said("Chinese", "中文"),
    "ja": Said("Japanese", "日语"),
    "ko": Said("Korean", "韩语"),
    "fr": Said("French", "法语"),
    "de": Said("German", "德语"),
    "es": Said("Spanish", "西班牙语"),
    "pt": Said("Portuguese", "葡萄牙语"),
    "it": Said("Italian", "意大利语"),
    "nl": Said("Dutch", "荷兰语"),
    "pl": Said("Polish", "波兰语"),
    "ru": Said("Russian", "俄语"),
    "uk": Said("Ukrainian", "乌克兰语"),
    "ar": Said("Arabic", "阿拉伯语"),
    "hi": Said("Hindi", "印地语"),
    "tr": Said("Turkish", "土耳其语"),
    "vi": Said("Vietnamese", "越南语"),
}
KINDS = {
    "prose": Said("prose", "文章"),
    "code": Said("source code", "源代码"),
    "web": Said("web pages", "网页"),
    "mail": Said("mail", "邮件"),
    "table": Said("tables", "表格"),
}


def step_name(step: str) -> Said:
    """The name of a step."""
    return STEPS[step][0] if step in STEPS else Said(step, step)


def reason(sentence: str) -> Said:
    """A reason or evidence of the ledger; what is not known stays as it is."""
    return translated(sentence, (*REASONS, *PHRASES))
