"""How fast a measured quantity grows, whatever a few odd samples say: the median of the slopes of all pairs (Theil and Sen), and
between what bounds the true slope lies (Sen 1968, from Kendall's statistic)."""
import math

# Pairs grow with the square of the samples; so many samples are as good as all.
SAMPLES_MAX = 400
# Of the normal distribution, for an interval that holds the true slope in 95 of 100 cases.
Z95 = 1.96


def thin(points):
    """Medians of equal runs of points, SAMPLES_MAX at most: what comes and goes within a run does not count."""
    run = math.ceil(len(points) / SAMPLES_MAX)
    parts = [points[n:n + run] for n in range(0, len(points), run)]
    return [(sorted(x for x, _ in p)[len(p) // 2], sorted(y for _, y in p)[len(p) // 2]) for p in parts]


def slope(points):
    """(slope, low, high) of [(x, y), …], x growing."""
    points = thin(points)
    n = len(points)
    if n < 8:
        raise ValueError(f"{n} samples are too few for a slope")
    slopes = sorted((yb - ya) / (xb - xa) for a, (xa, ya) in enumerate(points) for xb, yb in points[a + 1:] if xb > xa)
    spread = Z95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, int((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, int((len(slopes) + spread) / 2) + 1)
    return slopes[len(slopes) // 2], slopes[low], slopes[high]
