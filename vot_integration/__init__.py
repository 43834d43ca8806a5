"""DepthTrack and VOT-RGBD2022 through the official VOT toolkit."""
