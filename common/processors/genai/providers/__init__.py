"""One module a GenAI provider, named as its key in ``configs/system/providers.yml``, each with a ``PROVIDER``.

Adding a provider is a module here, its pipeline's YAML and its entry in the registry (docs/providers.md shows one).
"""
