"""One cleaning step a file: ``Document -> Document | Drop(reason)``, documented with its source, switchable.

A file holds a frozen dataclass ``Config``, whose ``on`` switches the step, and ``build(config) -> Step``. To add a
step, write such a file and name it in ``STEPS``, at the place in the order where it belongs.
"""
