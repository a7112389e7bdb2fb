-- Collects new statistics on the backend's track artists.
ANALYZE {backend}.compilation_track_artist
