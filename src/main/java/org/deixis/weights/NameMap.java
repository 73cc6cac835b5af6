package org.deixis.weights;

import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.deixis.core.InputException;
import org.deixis.model.gres.JsonRecord;

/**
 * How one publisher names the parameters of an encoder: data, read from {@code
 * weights-tools/*.json}.
 *
 * <p>A name that {@code ignore} finds is of no use to us (buffers, classification heads); else the
 * first pattern of {@code rename} that finds it says our name. A name of ours that ends in {@code
 * #i/n} is the i-th of n parts that are stacked along the first axis, as where queries, keys and
 * values come apart.
 */
public final class NameMap {
  /** Names of the maps, in the order in which they are tried. */
  private static final List<String> KNOWN =
      List.of(
          "deixis",
          "timm-swin",
          "detectron2-swin",
          "microsoft-swin",
          "torchvision-swin",
          "huggingface-swin",
          "huggingface-roberta",
          "huggingface-bert");

  private static final Pattern PART = Pattern.compile("(.*)#(\\d)/(\\d)");

  /**
   * The file's content.
   *
   * @param source what a user calls it
   * @param encoder "vision", "text", or "" for the whole model
   * @param kind of text encoder, or null: both kinds have the same names without a prefix
   * @param requires patterns of which each must find a name
   * @param forbids patterns that must find none
   * @param rename pairs of pattern and replacement
   */
  record Content(
      String source,
      String encoder,
      String kind,
      List<String> requires,
      List<String> forbids,
      List<String> ignore,
      List<List<String>> rename) {}

  /**
   * Where a tensor of a checkpoint goes.
   *
   * @param name ours, within the encoder
   * @param part which of {@code parts} along the first axis
   */
  public record Target(String name, int part, int parts) {}

  private record Rename(Pattern from, String to) {}

  private final Content content;
  private final List<Pattern> requires;
  private final List<Pattern> forbids;
  private final List<Pattern> ignore;
  private final List<Rename> renames = new ArrayList<>();

  private NameMap(Content content) {
    this.content = content;
    requires = patterns(content.requires);
    forbids = patterns(content.forbids);
    ignore = patterns(content.ignore);
    for (List<String> pair : content.rename) {
      renames.add(new Rename(Pattern.compile(pair.get(0)), pair.get(1)));
    }
  }

  private static List<Pattern> patterns(List<String> all) {
    return all.stream().map(Pattern::compile).toList();
  }

  /** A map by the name of its file, without the ending. */
  static NameMap of(String name) {
    String resource = "/weights/" + name + ".json";
    try (InputStream in = NameMap.class.getResourceAsStream(resource)) {
      if (in == null) {
        throw new IllegalStateException("the program comes without " + resource);
      }
      return new NameMap(
          JsonRecord.read(
              resource,
              in.readAllBytes(),
              new Content("", "", "", List.of(), List.of(), List.of(), List.of())));
    } catch (IOException e) {
      throw new IllegalStateException("cannot read " + resource, e);
    }
  }

  /**
   * The map that a checkpoint's names ask for.
   *
   * @param encoder "vision", "text" or "" for the whole model
   * @param kind "BERT" or "ROBERTA" for a text encoder
   * @param where the file's name, for messages
   * @throws InputException when no map knows the names
   */
  public static NameMap recognise(
      String where, Collection<String> names, String encoder, String kind) {
    List<String> sources = new ArrayList<>();
    for (String known : KNOWN) {
      NameMap map = of(known);
      if (map.content.encoder.equals(encoder) && map.isOfKind(kind)) {
        sources.add(map.source());
        if (map.knows(names)) {
          return map;
        }
      }
    }
    for (String known : KNOWN) {
      NameMap map = of(known);
      if (map.content.encoder.equals(encoder) && !map.isOfKind(kind) && map.knows(names)) {
        throw new InputException(
            "%s: its names are those of %s, and the configuration's text.kind is %s; give a --config of kind %s"
                .formatted(where, map.source(), kind, map.content.kind));
      }
    }
    throw new InputException(
        "%s: its names are of no known %s (%s); 'deixis import --inspect' lists them%s"
            .formatted(
                where,
                encoder.isEmpty() ? "model" : encoder + " encoder",
                String.join("; ", sources),
                names.isEmpty() ? "" : ", the first is " + names.iterator().next()));
  }

  private boolean isOfKind(String kind) {
    return content.kind.isEmpty() || content.kind.equals(kind);
  }

  private boolean knows(Collection<String> names) {
    return requires.stream().allMatch(p -> names.stream().anyMatch(n -> p.matcher(n).find()))
        && forbids.stream().noneMatch(p -> names.stream().anyMatch(n -> p.matcher(n).find()));
  }

  /** What a user calls it: "timm Swin (0.9 and later)". */
  public String source() {
    return content.source;
  }

  /** Whether a tensor of that name is of no use to us. */
  public boolean ignores(String name) {
    return ignore.stream().anyMatch(p -> p.matcher(name).find());
  }

  /** Where a tensor of that name goes, or null when the map does not know. */
  public Target target(String name) {
    for (Rename rename : renames) {
      Matcher m = rename.from.matcher(name);
      if (m.find()) {
        String ours = m.replaceFirst(rename.to);
        Matcher part = PART.matcher(ours);
        return part.matches()
            ? new Target(
                part.group(1), Integer.parseInt(part.group(2)), Integer.parseInt(part.group(3)))
            : new Target(ours, 0, 1);
      }
    }
    return null;
  }
}
