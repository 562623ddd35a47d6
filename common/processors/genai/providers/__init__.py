"""One module per GenAI provider, named as its key in ``configs/system/providers.yml``, each with a ``PROVIDER``.

To add a provider, add a module here, its pipeline's YAML and its entry in the registry (docs/providers.md shows how).
"""
