package org.deixis.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.data.Box;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.data.Rle;
import org.deixis.infer.Overlay;
import org.deixis.infer.Segmentation;
import org.deixis.infer.Segmenter;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

@Command(
    name = "predict",
    description =
        "Finds what phrases name in pictures: for each, a mask and an overlay (PNG) and a JSON file.",
    footer = {
      "",
      "  deixis predict --model runs/demo/model --image a.jpg b.png --text \"the red circle\" \"the two squares\" --out found"
    })
final class PredictCommand extends BaseCommand {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int LONGEST_SLUG = 40;

  /** Letters of a phrase on the console; the JSON file has all. */
  private static final int LONGEST_SHOWN = 100;

  @Option(names = "--model", paramLabel = "DIR", required = true, description = "Model folder.")
  private Path model;

  @Option(
      names = "--image",
      paramLabel = "FILE",
      arity = "1..*",
      required = true,
      description = "JPEG or PNG; one or more.")
  private List<Path> images;

  @Option(
      names = "--text",
      paramLabel = "PHRASE",
      arity = "1..*",
      required = true,
      description = "One or more phrases, asked of every picture.")
  private List<String> phrases;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      required = true,
      description = "Where the results go.")
  private Path folder;

  @Option(
      names = "--expect-none",
      paramLabel = "P",
      defaultValue = "0.5",
      description = {
        "Probability from which a phrase is said to name nothing, its mask then empty. Lower it where most phrases name",
        "nothing, raise it where hardly any does. Default: ${DEFAULT-VALUE}."
      })
  private double expectNone;

  @Option(
      names = "--precision",
      paramLabel = "TYPE",
      defaultValue = "fp32",
      description =
          "Type that products multiply in: fp32, bf16 or fp16, where the device gains from it."
              + " Default: ${DEFAULT-VALUE}.")
  private String precision;

  @Mixin private EngineOptions engine;

  @Override
  public Integer call() {
    for (String phrase : phrases) {
      if (phrase.isBlank()) {
        throw new InputException("--text: empty phrase; say what to look for");
      }
    }
    try (Segmenter segmenter =
        Segmenter.open(model, engine.device(err), expectNone, EngineOptions.precision(precision))) {
      // All files are looked through before the first answer is written: a bad one leaves nothing
      // half done. One picture at a time is held decoded, as there may be thousands.
      images.forEach(Images::check);
      for (int i = 0; i < images.size(); i++) {
        Path file = images.get(i);
        RgbImage picture = Images.readUpright(file);
        List<Segmentation> found = segmenter.segment(picture, phrases);
        for (int j = 0; j < found.size(); j++) {
          write(name(file, i, phrases.get(j), j), file, picture, found.get(j));
        }
      }
    }
    return 0;
  }

  /** Picture and phrase, with numbers where a second one would take the same name. */
  private String name(Path file, int image, String phrase, int number) {
    String stem = file.getFileName().toString().replaceFirst("\\.[^.]*$", "");
    String slug = phrase.toLowerCase(Locale.ROOT).replaceAll("[^\\p{L}\\p{N}]+", "-");
    slug = slug.substring(0, Math.min(slug.length(), LONGEST_SLUG)).replaceAll("^-|-$", "");
    String of = (phrases.size() > 1 ? (number + 1) + "-" : "") + (slug.isEmpty() ? "phrase" : slug);
    return (images.size() > 1 ? (image + 1) + "-" : "") + stem + "." + of;
  }

  private void write(String name, Path file, RgbImage picture, Segmentation s) {
    RgbImage overlay = Overlay.draw(picture, s.mask());
    ObjectNode root = JSON.createObjectNode();
    root.put("image", file.toString());
    root.put("height", picture.height());
    root.put("width", picture.width());
    root.put("phrase", s.phrase());
    root.put("no_target", s.saysNoTarget());
    root.put("no_target_probability", s.noTarget());
    ArrayNode regions = root.putArray("region_probabilities");
    s.regions().forEach(regions::add);
    root.put("region_rows", s.regionRows());
    root.put("area", s.mask().area());
    if (s.box() == null) {
      root.putNull("box");
    } else {
      box(root.putArray("box"), s.box());
    }
    ArrayNode boxes = root.putArray("boxes");
    s.boxes().forEach(b -> box(boxes.addArray(), b));
    ObjectNode rle = root.putObject("rle");
    rle.putArray("size").add(picture.height()).add(picture.width());
    rle.put("counts", Rle.encode(s.mask()).compressed());
    Path json = folder.resolve(name + ".json");
    Map<Path, byte[]> files = new LinkedHashMap<>();
    files.put(folder.resolve(name + ".mask.png"), Images.encodePng(s.mask()));
    files.put(folder.resolve(name + ".overlay.png"), Images.encodePng(overlay));
    files.put(json, (root.toPrettyString() + "\n").getBytes(StandardCharsets.UTF_8));
    AtomicWrite.files(files);
    out.printf(
        "%s  \"%s\"  %s%n",
        json,
        s.phrase().length() > LONGEST_SHOWN
            ? s.phrase().substring(0, LONGEST_SHOWN) + "…"
            : s.phrase(),
        s.saysNoTarget()
            ? String.format(Locale.ROOT, "nothing (%.0f %% sure)", 100 * s.noTarget())
            : s.mask().area() + " pixels, box " + s.box());
  }

  private static void box(ArrayNode node, Box b) {
    node.add(b.x()).add(b.y()).add(b.width()).add(b.height());
  }
}
