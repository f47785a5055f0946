"""Lines that belong to a page or to a mailing system, not to its text: menus, cookie banners, footers of lists.

Line rules are from C4 (Raffel et al. 2020, section 2.2) and FineWeb (Penedo et al. 2024). Theirs that
take lines without a full stop, or short lines, are not here: they eat headings, verse, plays, lists and Chinese
titles. These take a line only where the whole of it says what it is, or in a menu that two known entries mark. The
rules; the note of a document counts the lines of each:

- ``phrase``: a known button or heading, alone on its line (web)
- ``menu``: known entries with nothing but short lines between them, or on one line with separators (web)
- ``cookies``, ``javascript``: banners (web, prose)
- ``rights``: who holds the copyright, licences to operate (web; the Chinese ones in prose, too)
- ``editor``: 责任编辑 and the like (web, prose)
- ``next``: the pages before and after, where to share or print it (web)
- ``list``: what a mailing list, a provider or a telephone appends (mail)
- ``signature``, ``quote``: from ``--`` on, and lines that begin with ``>`` (mail; off, as people wrote them)
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from bimo.config import setting
from bimo.text.document import Document, Step
from bimo.text.scan import LINES_NAMED, facts_of

ROUNDS = 8  # until nothing is removed; one, and one more to see it, but for made-up text
LONGEST_LINE = 400  # characters: what is longer is text
MENU_ENTRY = 30  # characters
MENU_GAP = 8  # lines between two known entries of a menu
FOOTER_LINES = 8

BUTTONS = """
    share|tweet|pin it|e-mail this|email this|share this|share this article|share this page|share this post
    share on facebook|share on twitter|share on x|share on linkedin|share via email|tweet this|like us on facebook
    follow us|follow us on twitter|follow us on facebook|follow us on instagram|connect with us|subscribe
    subscribe now|subscribe to our newsletter|sign up for our newsletter|sign up to our newsletter
    join our mailing list|unsubscribe|read more|continue reading|click here|learn more|view more|show more|load more
    see all|view all|advertisement|advertisements|sponsored|sponsored content|leave a comment
    leave a reply|post a comment|add a comment|cancel reply|report abuse|flag as inappropriate|log in to reply
    skip to content|skip to main content|skip to navigation|jump to navigation|jump to content|toggle navigation
    back to top|return to top|go to top|previous post|next post|previous article|next article|related articles
    related posts|related stories|you may also like|you might also like|recommended for you|most read|most popular
    popular posts|recent posts|recent comments|trending now|all rights reserved|loading|please wait|print this page
    bookmark this page|table view
    分享|分享到|分享至|微信分享|点赞|收藏|举报|打印|打印本页|关闭|关闭窗口|返回|返回顶部|回到顶部|返回首页|返回列表
    返回目录|阅读全文|阅读原文|查看全文|查看更多|查看原文|展开全文|点击展开|加载更多|更多|更多内容|继续阅读
    收起|相关阅读|相关新闻|相关文章|相关推荐|相关链接|推荐阅读|延伸阅读|热门文章|热门推荐|热点推荐|热门新闻|猜你喜欢
    精彩推荐|为您推荐|大家都在看|最新评论|网友评论|发表评论|我要评论|暂无评论|写评论|广告|设为首页|加入收藏|收藏本站
    收藏本页|上一页|下一页|上一篇|下一篇|扫一扫|关注我们|关注公众号|免责声明|分享到微信|分享到微博|登录后评论
    立即注册|立即登录|忘记密码|跳转到主要内容|関連記事
    続きを読む|もっと見る|ページトップへ|ページトップへ戻る|トップへ戻る|このページの先頭へ|前の記事|次の記事|シェア
    シェアする|ツイート|ツイートする|コメントを残す|印刷する|お気に入りに追加
"""
ENTRIES = """
    home|home page|homepage|main menu|menu|about|about us|about me|contact|contact us|news|blog|blogs|shop|store
    cart|shopping cart|checkout|my account|account|login|log in|log out|sign in|sign up|register|search|site map
    sitemap|help|faq|faqs|support|services|products|careers|jobs|press|media|advertise|advertise with us|events
    gallery|downloads|links|archives|categories|tags|forum|forums|privacy|privacy policy|privacy notice|terms
    terms of use|terms of service|terms and conditions|terms & conditions|cookie policy|cookie settings|cookies
    legal|legal notice|disclaimer|accessibility|feedback|rss|rss feed|facebook|twitter|instagram|linkedin|youtube
    pinterest|newsletter|donate
    首页|网站首页|关于我们|关于本站|联系我们|联系方式|网站地图|友情链接|新闻中心|新闻|产品中心|产品展示|服务
    下载中心|下载|论坛|社区|博客|登录|注册|登陆|退出|搜索|帮助|帮助中心|常见问题|客服中心|意见反馈|广告服务|广告合作
    商务合作|招聘信息|诚聘英才|加入我们|人才招聘|法律声明|版权声明|隐私政策|隐私声明|用户协议|服务条款|手机版|客户端
    公司简介|在线留言|会员中心|个人中心|我的订单|购物车|视频|财经|体育|娱乐|军事|科技|汽车|房产|教育|国际|国内|社会
    图片|旅游|健康|时尚|会社概要|利用規約|新規登録|会員登録|採用情報
    ホーム|トップ|トップページ|お問い合わせ|サイトマップ|プライバシーポリシー|ログイン|お知らせ|よくある質問
"""


def _phrases(listed: str) -> frozenset[str]:
    return frozenset(phrase for line in listed.strip().split("\n") for phrase in line.strip().split("|"))


PHRASES, MENU_ENTRIES = _phrases(BUTTONS), _phrases(ENTRIES)
SEPARATED = re.compile(r"\s*(?:[|｜•·»›>]+|\s/\s)\s*")


class Rule(NamedTuple):
    """Lines that match ``pattern`` as a whole go; it is tried on texts that hold one of ``needles``."""

    name: str
    kinds: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]


def _rule(name: str, kinds: str, needles: str, pattern: str) -> Rule:
    return Rule(name, kinds, tuple(needles.split("|")), re.compile(pattern, re.IGNORECASE | re.VERBOSE))


RULES = (
    _rule(
        "cookies",
        "web prose",
        "cookie|Cookie|COOKIE",
        r"""(?:(?:we|(?:this|our)\ (?:web)?(?:site|page)|our\ partners)\b[^.]{0,60}\buses?\b[^.]{0,20}\bcookies\b
              .*\b(?:(?:web)?site|experience|browser|browsing|consent|analy[sz]e|traffic|agree|accept|policy)\b.*
          | .*\bby\ (?:continuing|browsing|clicking|closing|visiting
              |using\ (?:this|our|the)\ (?:(?:web)?site|service))\b.*\bcookies\b.*
          | (?:accept|reject|manage|allow|decline|disable|enable)\ (?:all\ |only\ )?(?:\w+\ )?cookies
          | .{0,40}\bcookie\ (?:policy|settings|notice|preferences|consent|declaration)[.!]?
          | .*(?:本网站|本站|我们)[^。]{0,10}使用\ ?cookies?.*
          | .*(?:当サイト|当社|本サイト)[^。]{0,20}cookie[^。]{0,10}使用.*)""",
    ),
    _rule(
        "javascript",
        "web prose",
        "avascript|avaScript|AVASCRIPT",
        r"""(?:.{0,60}\b(?:please|must|need\ to|have\ to)\ (?:enable|turn\ on|activate|allow)\ javascript\b.{0,60}
          | .{0,30}\bjavascript\ (?:is|must\ be|has\ been|seems\ to\ be|appears\ to\ be)\ (?:currently\ )?
              (?:disabled|turned\ off|not\ (?:enabled|available|supported)|enabled|required)\b.{0,60}
          | .{0,60}\b(?:requires?|without|does\ not\ support|doesn['’]t\ support)\ javascript(?:\ enabled)?\b.{0,40}
          | .{0,30}(?:请|需要|必须).{0,6}(?:启用|开启|打开|允许).{0,4}javascript.{0,30}
          | .{0,40}javascript.{0,10}(?:有効|無効).{0,30})""",
    ),
    _rule(
        "rights",
        "web",
        "©|opyright|OPYRIGHT|ights|IGHTS|(c)|(C)",
        r"""(?:(?:(?:copyright|copr\.)\s*)?(?:©|\(c\)|&copy;|copyright)\s*(?:copyright\s*)?(?:\d{4}|by\b).{0,120}
          | .{0,100}\ball\ rights\ reserved\b.{0,40})""",
    ),
    _rule(
        "rights",
        "web prose",
        "版权|ICP|公网安备|许可证|转载|备案|無断",
        r"""(?:.{0,40}(?:版权所有|版權所有).{0,60}
          | .{0,30}[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼]ICP[备证].{0,40}
          | .{0,20}公网安备.{0,30}
          | .{0,10}(?:增值电信业务|新闻信息服务|网络文化|传播视听节目|广播电视节目)[^。]{0,20}许可证.{0,40}
          | .{0,20}未经.{0,20}(?:授权|许可|允许|同意)[^。]{0,20}(?:转载|复制|镜像|使用|摘编).{0,40}
          | .{0,30}(?:转载请(?:注明|联系|保留)|欢迎转载|谢绝转载|禁止转载|严禁转载).{0,60}
          | .{0,40}無断(?:転載|複製|使用).{0,20}禁.{0,20})""",
    ),
    _rule(
        "editor",
        "web prose",
        "编辑|校对|编審|审核|扫|关注|公众号|二维码",
        r"""(?:[\[【（(]?(?:责任编辑|责编|本文编辑|网络编辑|见习编辑|实习编辑|编辑|校对|审核|监制)\s*[:：]\s*[^。，]{1,20}[\]】）)]?
          | .{0,20}(?:扫码|扫一扫|扫描|长按|识别).{0,16}(?:关注|二维码|公众号|下载|加群).{0,20}
          | .{0,10}(?:关注|订阅)(?:我们的?)?.{0,10}(?:微信)?公众号.{0,20})""",
    ),
    _rule(
        "next",
        "web",
        "上一|下一|当前位置|位置|分享|字号|字体|前の|次の|Prev|prev|Next|next|Share|share|Posted|You are here",
        r"""(?:(?:上一[篇页条章]|下一[篇页条章])\s*[:：].{0,60}
          | (?:您?(?:现在|当前)?的?(?:当前)?位置|您现在的位置是?)\s*[:：].{0,80}
          | 分享(?:到|至)\s*[:：].{0,60}
          | 【?\s*(?:字号|字体)\s*[:：]?\s*[大中小\s|/【】\[\]]{3,20}.{0,20}
          | (?:前の|次の)(?:記事|ページ)\s*[:：»>].{0,60}
          | (?:[«<←‹]+\s*)?(?:previous|prev|next)\s*(?:post|article|story|page)?\s*[:»>→›].{0,80}
          | share\ (?:this|on)\b.{0,12}:.{0,60}
          | you\ are\ here\s*:.{0,80})""",
    ),
    _rule(
        "list",
        "mail",
        "nsubscribe|NSUBSCRIBE|/listinfo/|You are |Yahoo|Sent |Posted |Get Outlook|发自|发送|から送信",
        r"""(?:(?-i:T[Oo])\ unsubscribe\b.{0,160} | \S+-unsubscribe@\S+ | https?://\S+/listinfo/\S+
          | (?-i:You)\ are\ (?:receiving\ this\ e?-?mail|(?:currently\ )?subscribed\ to)\b.{0,160}
          | your\ use\ of\ yahoo!?\ groups\ is\ subject\ to\b.{0,80}
          | do\ you\ yahoo!\?
          | (?:sent|posted)\ (?:from|via)\ my\ (?:\w+\ )?
              (?:i?phone|ipad|android|blackberry|mobile|tablet|\w+\ device)\b.{0,40}
          | get\ outlook\ for\ \w+.{0,40}
          | (?:发自|从)我?的?\s?(?:iPhone|iPad|手机|华为手机|小米手机|Android|.{2,12}邮箱|.{2,20}发送).{0,20}
          | iPhoneから送信)""",
    ),
)

RULER = re.compile(r"--|[-_=]{20,}|-+ Yahoo! Groups Sponsor -+.*|-{20,}~-+>")
FOOTER = re.compile(
    r"(?:the )?[\w.-]+ mailing list\W*(?:<?\S+@\S+)?|.*https?://\S+/listinfo/.*|.*\b(?-i:To) (?:un)?subscribe\b.*"
    r"|.*\bemail is sponsored by\b.*|do you yahoo!\?.*|-+ yahoo! groups sponsor -.*|get your free\b.*\be-?mail\b.*"
    r"|.*\b(?:msn photos|msn messenger|hotmail)\b.*\bhttp.*",
    re.IGNORECASE,
)
ATTRIBUTION = re.compile(r".{0,160}\b(?:wrote|writes|schrieb|a écrit)\s*:|.{0,80}(?:写道|写到|の書込)\s*[:：]?")


@dataclass(frozen=True, slots=True)
class Config:
    """What is removed."""

    on: bool = setting(True, "remove menus, banners and footers from web pages and mail, line by line")
    signatures: bool = setting(False, "of mail, also remove signatures; often they hold names and numbers")
    quotes: bool = setting(False, "of mail, also remove quoted lines, which repeat another mail")


def build(config: Config) -> Step:
    """The step."""

    def step(document: Document) -> Document:
        if document.kind not in ("web", "mail", "prose"):
            return document
        text = document.text
        if document.kind == "prose" and (facts := facts_of(text)) and not facts.needles & LINES_NAMED:
            return document
        removed = Counter[str]()
        for _ in range(ROUNDS):
            lines = text.split("\n")
            gone = _gone(text, lines, document.kind, config)
            if not gone:
                break
            removed.update(gone.values())
            text = _without(lines, gone)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(removed.items()))
        return document.changed(text, f"boilerplate: {removed.total()} lines removed ({counts})")

    return step


def _gone(text: str, lines: list[str], kind: str, config: Config) -> dict[int, str]:
    """The numbers of the lines to remove, each with the name of its rule."""
    rules = [rule for rule in RULES if kind in rule.kinds and any(needle in text for needle in rule.needles)]
    if kind == "prose" and not rules:
        return {}
    gone: dict[int, str] = {}
    if kind == "mail":
        _find_footers(lines, gone)
        if config.signatures:
            _find_signature(lines, gone)
        if config.quotes:
            _find_quotes(lines, gone)
    for number, line in enumerate(lines):
        if number in gone or len(line) > LONGEST_LINE:
            continue
        bare = line.strip(" \t\u3000*•·|>»-–—")
        if kind == "web" and bare.rstrip(":：… ").lower() in PHRASES:
            gone[number] = "phrase"
            continue
        for rule in rules:
            if any(needle in line for needle in rule.needles) and rule.pattern.fullmatch(bare):
                gone[number] = rule.name
                break
    if kind == "web":
        _find_menus(lines, gone)
    return gone


def _find_menus(lines: list[str], gone: dict[int, str]) -> None:
    menu: list[int] = []  # the last known entry, and the short lines after it
    for number, line in enumerate(lines):
        bare = line.strip(" \t\u3000*•·|>»-–—+#")
        if number in gone or not bare:
            continue
        if len(bare) <= MENU_ENTRY and bare[-1].isalnum() and _is_entry(bare):
            if menu and len(menu) <= MENU_GAP + 1:
                gone |= dict.fromkeys([*menu, number], "menu")
            menu = [number]
        elif len(bare) > MENU_ENTRY or bare[-1] in ".!?:;,。！？：；，、…”\"'":
            menu = []
            if len(bare) < LONGEST_LINE and _is_menu_line(bare):
                gone[number] = "menu"
        elif _is_menu_line(bare):
            gone[number] = "menu"
        elif menu:
            menu.append(number)


def _is_menu_line(bare: str) -> bool:
    parts = SEPARATED.split(bare)
    if len(parts) < 3 or max(map(len, parts)) > MENU_ENTRY:
        return False
    return sum(map(_is_entry, parts)) >= 2


def _is_entry(bare: str) -> bool:
    lower = bare.strip().lower()
    first, _, rest = lower.partition(" ")
    return (
        lower in MENU_ENTRIES
        or (first in ("our", "my", "the") and rest in MENU_ENTRIES)
        or first in ("about", "contact")
    )


def _find_footers(lines: list[str], gone: dict[int, str]) -> None:
    """A line of dashes, and the block under it where that speaks of a list or a sponsor."""
    for number, line in enumerate(lines):
        if not _is_ruler(line):
            continue
        end = number + 1
        while end < len(lines) and end <= number + FOOTER_LINES and lines[end].strip() and not _is_ruler(lines[end]):
            end += 1
        if any(FOOTER.fullmatch(line.strip()) for line in lines[number:end]):
            if end < len(lines) and lines[end].rstrip().endswith("~->"):  # the end of an advertisement
                end += 1
            gone |= dict.fromkeys(range(number, end), "list")


def _is_ruler(line: str) -> bool:
    return line.startswith(("-", "_", "=")) and RULER.fullmatch(line.rstrip()) is not None


def _find_signature(lines: list[str], gone: dict[int, str]) -> None:
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].rstrip() == "--":
            gone |= {below: "signature" for below in range(number, len(lines)) if below not in gone}
            return


def _find_quotes(lines: list[str], gone: dict[int, str]) -> None:
    for number, line in enumerate(lines):
        if line.lstrip().startswith(">"):
            gone.setdefault(number, "quote")
            above = number - 1
            while above > 0 and not lines[above].strip():
                above -= 1
            if above >= 0 and above not in gone and ATTRIBUTION.fullmatch(lines[above].strip()):
                gone[above] = "quote"


def _without(lines: list[str], gone: dict[int, str]) -> str:
    """The other lines; where blank lines stood on both sides of what is gone, those above stay."""
    kept: list[str] = []
    after_gap = False
    for number, line in enumerate(lines):
        if number in gone:
            after_gap = True
        elif line.strip() or not after_gap or (kept and kept[-1].strip()):
            kept.append(line)
            after_gap = after_gap and not line.strip()
    text = "\n".join(kept).strip("\n")
    return f"{text}\n" if text and lines[-1] == "" else text
