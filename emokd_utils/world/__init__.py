"""The built-in world: EmoScenes and TinyVLM."""
