"""Messages of programs and their translations, from the catalogues in packages of a Debian system's registry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bimo.text.labelled_debian import is_translated, messages
from bimo.text.labelled_rows import Rows, once, split_of

# (package, version, bytes, SHA-256): those that hold most Chinese for their size, for all kinds of processors.
PACKAGES = (
    ("aegisub-l10n", "3.2.2+dfsg-7", 492_656, "4a03a058aedcf7bec2f64899e23e68d3584d2bec467ab962ab0ac46860a1aab4"),
    ("amule-common", "1:2.3.3-3", 1_251_532, "82acdbe3b744cdfc8ea03fe655c8c2cbbb7224be45225c6ded9c9d080cb84305"),
    ("aptitude-common", "0.8.13-5", 1_777_280, "3310ec70a514fbebd7082059d5cebf97e82485abfcb13c9ad21858e09abadc36"),
    ("audacious-plugins-data", "4.2-1", 795_904, "175aa5f5388578234d8597f78bd7bb7b8b3328296a65b19b6bee2943ef1481c3"),
    ("audacity-data", "3.2.4+dfsg-1", 2_409_248, "82b3f46f97238f64cf0982155f81e350df4553231d2a7186e4aea2712e96a5d4"),
    (
        "calligrasheets-data",
        "1:3.2.1+dfsg-6",
        4_391_852,
        "7939fc0d93334e322dbeba4b5afe10f5ab09951df6ee3cbe6907580e913e91b0",
    ),
    ("cataclysm-dda-data", "0.F-3-9", 29_707_972, "cd0c097169fe364fdb6bcdab77663d24920a063387ce2fbf1b5d3be01c141105"),
    ("digikam-data", "4:7.9.0-1", 11_000_040, "a941a504ba7bdf9d276a43ca3c2a0b2b5b74a55420d8c4b4f29d681e96cbf450"),
    ("dolphin-emu-data", "5.0-17995-1", 2_172_892, "b6a20298ef23176ef9d008c981ce3e7e7a62c2dd0e2bc1b473c56fdf1d4ae6c7"),
    ("e2fsprogs-l10n", "1.47.0-2", 505_396, "30830c185a0d02d444ad7b900ee5353d13f442dc5479847ce700ba34136a2df8"),
    ("fcitx-data", "1:4.2.9.9-1", 209_820, "f7baec9df5508748222e8f757fd6250e4ea890610bb5a4ae783a8e5dac22eb5e"),
    ("freeipa-common", "4.9.11-1", 544_004, "f14285fc27b05c2a3d5c22100a9bf947b190ec0705cfe76146a9eb6ca48f7fa3"),
    ("gcal-common", "4.1-3.1", 691_620, "7aa4be349a68185003828c5268a7be37b660e9ad2632e0992f092ecf2537e67e"),
    ("gcc-11-locales", "11.3.0-12", 1_714_268, "389261b27cbc48d041c102877115508f07067a802888e797ee63d29b1fa7fd03"),
    ("gftp-common", "2.9.1~beta-1", 539_704, "f49e98cc87dfb38646ef20dc1e9eac11d850dbebf942bb743eaced1cb48181a2"),
    ("gnucash-common", "1:4.13-1", 5_194_912, "8477b415856eb671125ee63ac6a4ee1d23efeca3de6e55e5a14c6ebb32642b31"),
    ("gnumeric-common", "1.12.55-1", 2_006_988, "b474f0a67a781bdb41374110b54fe679c690f981dac356a9ca6260688df9f6b8"),
    ("gnupg1-l10n", "1.4.23-1.1", 552_692, "67644fb18df0dcb216eb4169ccaf1ef30a86ecfbb20fa9335212ed502cd2a9bc"),
    ("gramps", "5.1.5-1", 6_748_788, "77875e0983e97498e91a14b4fd4033998146a582c7932a993cf268929a9fda6b"),
    (
        "gsettings-desktop-schemas",
        "43.0-1",
        642_864,
        "15cc7142c3ddea0551b834c53c4d3b5cd8f5485e695100966877f2be50def7af",
    ),
    ("gufw", "22.04.0-1", 890_148, "e21443c9fe835b85f35029f905e5ee4daad6f8ede157d4add825ea185acc8204"),
    (
        "gutenprint-locales",
        "5.3.4.20220624T01008808d602-1",
        478_600,
        "fd26ea8f374be641ad9b03a645ba724e0445d0cbf8688965a63e3ac1c2f08565",
    ),
    ("hexchat-common", "2.16.1-1", 748_804, "34fba7e9c26393d62d7a6ea8e5bf8482270dadcacf30377022b9f558f9e9f2cf"),
    ("kdevelop-l10n", "4:22.12.2-1", 1_205_184, "7cffb16efed112c7114ad6111e7282bb67872e787754d0fdb88a80ac66a6b956"),
    ("kile-l10n", "4:2.9.93-2", 1_078_032, "9a36e2b21a3befb68c0f388334c2d382e72bfbb9d9fa39a94eabe8ddf01e4dd9"),
    ("ktexteditor-data", "5.103.0-1.1", 1_230_376, "91afac98f286c85316f0204c15bd4a39ab06fb4905adda60fe45eed4dc7c0c3f"),
    ("ktorrent-data", "22.12.3-1", 1_481_864, "ac84fa6b90838ce1c097ea6e759c6a424ec9fc83496c7986eb12ee50895a5890"),
    ("libgda-5.0-common", "5.2.10-3", 939_208, "d2ea73fb1f492d6f18aa5a0a8dcc6ebcf4e958f310e8b0514baf08ac57afc26a"),
    (
        "libgoffice-0.10-10-common",
        "0.10.55-1",
        885_272,
        "5237779213dbb1a29028e9ebfbf3919a96cee73246803ff0d1f0549fe86253d2",
    ),
    ("libgphoto2-l10n", "2.5.30-1", 514_248, "77eef0b4e267f4b2bbae744ce19848b7c69416d6e25bc373b27dc00e30eb2556"),
    (
        "libkf5calendarsupport-data",
        "4:22.12.3-1",
        310_060,
        "08365ec2a55abe76b86364fc08c79fea75e15e116f107dae4281a9ce7db71ebc",
    ),
    ("libkf5sysguard-data", "4:5.27.5-2", 554_084, "dfc4d1bd445214740bae7a1662a85f2b660d48f162cb41cddd64a2fc87e45960"),
    (
        "libkf5unitconversion-data",
        "5.103.0-1",
        746_016,
        "c3552e62403c33305ecf0d6b374fe524fc1d802633874d38de0f84410029d05e",
    ),
    ("libqalculate-data", "4.5.1-1", 337_088, "cf28d0b1ee8d6b4ea077114b15f11e8074a21aa060a928325f1363552646d583"),
    ("lyx-common", "2.3.7-1", 10_704_000, "026c74cd2391a70b4dc18a99d46b745c243b9f9bd47ddfedacfc67ae4db92557"),
    ("mypaint-data", "2.0.1-9", 741_500, "7464a61f0c3034e52450576f055e8bed7b3fb0875d78f2f4c9d9ccadab95e3de"),
    ("php-horde-passwd", "5.0.7-9", 580_160, "43f9b34afef9ddad6de79c939949c59b32859bb834f55dab8a4ddd3defbf85ae"),
    ("python3-sepolgen", "3.4-1", 427_304, "12bb5331b91023e42bc23cbb246b402bd1b5a88aee854d0f8994335079e6ddff"),
    ("remmina-common", "1.4.29+dfsg-1", 639_704, "e16f85bf632a12ee5059355a801a29f6238cb34d9325fc6dfdd4c1a8db766ab4"),
    ("siril-common", "1.0.6-1", 736_428, "b22c32177a7004c8c9102fd52be2944ade2b435a4ca392a9b9d199565542bd26"),
    ("sphinx-common", "5.3.0-4", 652_804, "fad3360a66ec9159abbe22189fa4a2024aa62aa6a49630827fec04df21ea9c7a"),
    ("virtinst", "1:4.1.0-2", 817_876, "c1b50c563f789094a5d65633a2c147c2a7db9f09bc00efc0b12a57dbba9a0223"),
    ("wx3.2-i18n", "3.2.2+dfsg-2", 493_152, "2a1831a91a404694cd05cbb39c1dd0afa15574024c9e404f8032a0d28a3e35bd"),
    ("xkb-data", "2.35.1-1", 763_516, "28a79c61b785f403da93af58c39aed13c022032935e3e54362c6707169cfe982"),
    ("zypper-common", "1.14.42-2", 651_460, "1a9878958f07fc9579aa0aa30bd9e36328ccf71531ec7d68f367a3982f20cf9d"),
)
# The letter that chooses a button: "_File" or "&File", and "文件(_F)"; an underscore may also be part of a name.
KEY, KEY_APART = re.compile(r"[_&](?=\w)"), re.compile(r"\s*[(（][_&]\w[)）]")


def program_messages(locale: str, language: str) -> Callable[[Sequence[Path]], Rows]:
    """Messages of one line, without access keys; rows of the same English are on one side of the split."""

    def parse(paths: Sequence[Path]) -> Rows:
        def rows() -> Rows:
            for path in paths:
                for name, _, text, other in messages(path, f"/locale/{locale}/LC_MESSAGES/"):
                    text, other = _without_key(text, other)
                    if is_translated(text, other, language):
                        yield split_of(text), {"en": text, language: other, "document": f"{path.stem}/{name}"}

        return once(rows(), lambda row: (row["en"], row[language]))

    return parse


def _without_key(text: str, other: str) -> tuple[str, str]:
    if KEY_APART.search(other):
        return KEY.sub("", text, count=1), KEY_APART.sub("", other)
    if KEY.match(text) and KEY.match(other):
        return text[1:], other[1:]
    return text, other
