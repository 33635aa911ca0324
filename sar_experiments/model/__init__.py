"""The detector: built by Detectron2 from our config, its weights loaded, adapted and saved."""
