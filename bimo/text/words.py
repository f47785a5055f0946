"""The words that a language cannot do without: they say which language it is, and that it is language at all.

And the letters that few others have.
"""

from __future__ import annotations

FUNCTION_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": """the of and to in a is that it for was on he she with as at by his her not be are this have from i you
            or but they we had which what there were been would when who will my me so if do all no""",
        "fr": """le la les de des du et un une est en que qui dans pour pas au aux il elle ne se ce sur par avec plus
            son sa ses sont cette nous vous je mais ou été être comme tout""",
        "es": """el la los las de del y en que un una es por con se no para su al lo como más pero sus le ha este esta
            fue era son está muy todo yo cuando sin sobre también""",
        "pt": """o a os as de do da dos das e em no na que um uma é para com não se por mais como mas foi ao ele ela
            seu sua são ou quando muito nos já também só pelo isso""",
        "it": """il lo la gli le di del della dei che e un una è in per non si con da al sono come più anche ma questo
            nel alla ha su era nella o delle degli ed essere cui""",
        "de": """der die das und den von dem des mit ist zu ein eine nicht im auf für sich auch es er sie wir ich an
            als war wie bei nach aus oder wird sind einer einen zum zur über noch""",
        "nl": """de het een van en in is dat op te niet zijn voor met die er aan ook als maar om hij ze was bij door
            naar uit wordt werd deze heeft nog over dan ik je""",
        "sv": "och att det som en på är för av med den till ett i har inte om från var de sig jag han kan vid men",
        "da": "og at det som en på er for af med den til et i har ikke om fra var de sig jeg han kan ved men blev",
        "no": "og at det som en på er for av med den til et i har ikke om fra var de seg jeg han kan ved men ble",
        "fi": "ja on ei se että oli hän mutta joka kun ovat kuin myös sen ne tai mukaan jälkeen vuonna minä sinä niin",
        "pl": "i w na z się nie do to jest że o jak po od za przez był dla są ale co ich jego tak oraz który przy może",
        "cs": "a v se na je že to s z do o i jako byl po ale jsou pro by které ve který od za tak jeho podle při není",
        "sk": "a v sa na je že to s z do o aj ako bol po ale sú pre by ktoré vo ktorý od za tak jeho podľa pri nie",
        "hu": "a az és hogy nem egy is ez de volt meg csak mint még el van már ki ha vagy azt amely szerint után lehet",
        "ro": "și de la în a cu pe nu care un o este din se mai că sau fi pentru au al ale sunt fost prin după lui",
        "tr": "ve bir bu da de için ile çok ne o gibi olarak daha olan sonra kadar en ama ben var ise değil her",
        "ca": "el la els les de del i en que un una és per amb no al dels va com més seu seva són a l'any però ser ha",
        "vi": "và là của có không được cho một các trong người với những này đã để khi từ tôi ở ra như về đến",
        "id": "yang dan di dari untuk dengan ini itu pada tidak dalam adalah ke oleh sebagai juga atau akan saya ada",
        "ru": "и в не на что с по как это к из у он она за от я но был его для или то бы так же о мы а при",
        "uk": "і в не на що з як це до та у за від він вона я але був його для або й про ми а є при через",
        "bg": "и в не на че с по как това към от за се да е са си но беше той тя аз му или до ще като",
        "sr": "и у не на да је се од за са су што као али био или по то који из до",
        "el": "και το η της του να που με από για δεν στο στην είναι τα οι των τον την ένα θα ως",
        "ar": "في من على أن إلى عن التي هذا ما لا كان الذي هذه بين مع قد كل هو أو لم ثم",
        "fa": "و در به از که این را با است برای آن یک می های بر تا شد خود بود هم",
        "ur": "کے میں کی ہے اور سے کا کو اس پر نے یہ ہیں تھا کہ بھی ایک ان",
        "he": "של את על לא זה הוא עם כי גם אני היא אל או כל מה אבל היה",
        "hi": "के में की है और से का को पर यह हैं ने भी एक इस था कि लिए नहीं",
        "mr": "आणि आहे या हे होते तो ती व मध्ये आहेत नाही एक होता",
    }.items()
}

_ONLY_ENGLISH = """the and that which with were from this have been they would his you your what when there their them
    its into other such may these more than who not are could should shall thy thou she"""
ONLY_ENGLISH = frozenset(_ONLY_ENGLISH.split())  # common there, and no words, or rare ones, of the languages around
MOSTLY_ENGLISH = ONLY_ENGLISH | {"of", "was", "is", "by", "it", "he", "be"}

TELLING_LETTERS: dict[str, str] = {
    "fr": "çœèêùîôûàâ",
    "es": "ñ¿¡áíóú",
    "pt": "ãõçâêáí",
    "it": "àèìòù",
    "de": "ßäöü",
    "sv": "åäö",
    "da": "åæø",
    "no": "åæø",
    "fi": "äö",
    "pl": "ąćęłńśźż",
    "cs": "ěřůčžš",
    "sk": "ľĺŕôčžš",
    "hu": "őűáö",
    "ro": "șțăâî",
    "tr": "ığşüö",
    "ca": "çàèòï",
    "vi": "đơưạảấầậếềệịọộợụứừ",
    "ru": "ыэёъ",
    "uk": "іїєґ",
    "bg": "ъщ",
    "sr": "јљњћђџ",
    "fa": "پچژگک",
    "ur": "ٹڈڑںے",
}
